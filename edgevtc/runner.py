"""Runner: a bundle and a backend answer questions about videos."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgevtc.backends import create_backend
from edgevtc.bundle import Bundle, MethodEntry
from edgevtc.decoder.generator import Generator
from edgevtc.decoder.prompt import VisualSpan, assemble
from edgevtc.decoder.sampling import Sampler, SamplingConfig
from edgevtc.decoder.text import ChatTemplate, Message, TextCodec, question_text
from edgevtc.errors import BundleError, ConfigError, choices
from edgevtc.methods import budget_for
from edgevtc.video import FrameSampler
from edgevtc.vision import EncodedVideo, VisionPipeline, VisualTokens

__all__ = ["Answer", "Runner", "VideoSession"]

#: Length of an answer where neither the caller nor the checkpoint sets one.
DEFAULT_MAX_TOKENS = 256


@dataclass
class Answer:
    """An answer with the account of its making. All times are seconds of wall time.

    Attributes:
        question: As asked.
        answer: The text.
        method: Compression method.
        tokens_kept: B, visual tokens the decoder saw.
        tokens_total: T·N, visual tokens before compression.
        tokens_generated: Length of the answer in tokens.
        finish_reason: `stop` (the model ended it) or `length` (`max_tokens` did).
        frames_s: Reading, decoding and resizing frames; runs beside `encode_s`.
        encode_s: Vision encoder.
        compress_s: Compressor.
        prefill_s: Decoder over the part of the prompt that was not in its cache yet.
        prefill_tokens: Length of that part.
        generate_s: Decoder from the first token to the last.
        ttft_s: Time to first token: from opening the video, or for a later question from asking it.
        tokens_per_s: Tokens after the first, per second; 0 for an answer of one token.
        unknown_words: Words of the question that are outside the model's vocabulary.
        positions_sha256: Hash of the kept positions: the same on every backend that decided alike.
        bundle_sha256: Hash of the bundle's manifest.
        warnings: What the reader had to say about the video.
    """

    question: str
    answer: str = ""
    method: str = ""
    tokens_kept: int = 0
    tokens_total: int = 0
    tokens_generated: int = 0
    finish_reason: str = "stop"
    frames_s: float = 0.0
    encode_s: float = 0.0
    compress_s: float = 0.0
    prefill_s: float = 0.0
    prefill_tokens: int = 0
    generate_s: float = 0.0
    ttft_s: float = 0.0
    tokens_per_s: float = 0.0
    unknown_words: list[str] = field(default_factory=list)
    positions_sha256: str = ""
    bundle_sha256: str = ""
    warnings: list[str] = field(default_factory=list)


class Runner:
    """Loads a bundle once and opens videos on it.

    Args:
        bundle: Folder of a bundle; None for the one inside the package.
        method: Compression method; None for the bundle's first.
        budget: Tokens to keep; at most one of this and ``retention_ratio``.
        retention_ratio: Share of the T·N tokens to keep, in (0, 1].
        device: One of :data:`edgevtc.backends.DEVICES`.
        threads: Threads inside an operator on a CPU; all this process may use where None.
        weight_format: Weight format of the decoder; None for the bundle's first.

    Attributes:
        load_s: Seconds spent loading the decoder.

    Raises:
        BundleError: The bundle is missing, altered or incomplete.
        ConfigError: The bundle holds no such method, budget or weight format.
        BackendError: The device cannot serve it.

    Example:
        >>> from edgevtc import Runner
        >>> runner = Runner(method="uniform", retention_ratio=0.15)  # doctest: +SKIP
        >>> video = runner.open("clip.mp4")  # doctest: +SKIP
        >>> video.ask("what color is the circle").answer  # doctest: +SKIP
        'red'
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        *,
        method: str | None = None,
        budget: int | None = None,
        retention_ratio: float | None = None,
        device: str = "cpu",
        threads: int | None = None,
        weight_format: str | None = None,
    ) -> None:
        start = time.perf_counter()
        self.backend = create_backend(device, threads)
        self.bundle = Bundle(bundle)
        manifest = self.bundle.manifest
        self.method = select_method(self.bundle, method, budget, retention_ratio)
        self.vision = VisionPipeline(self.backend, self.bundle)
        decoder = manifest.decoder
        form = weight_format or next(iter(decoder.graphs))
        if form not in decoder.graphs:
            raise ConfigError(f"this bundle has no decoder in {form!r}: {choices(decoder.graphs)}")
        graph = self.backend.load(self.bundle.path, self.bundle.file(decoder.graphs[form]))
        self.generator = Generator(self.backend, graph, decoder, self.bundle.tensor(decoder.embeddings))
        self.text = TextCodec(self.bundle.file("tokenizer.json"))
        self.template = ChatTemplate(self.bundle.file("chat_template.jinja").read_text(encoding="utf-8"))
        self.stop_ids, self.max_tokens = generation_defaults(self.bundle)
        self.video_token_id = self.text.token_id(manifest.prompt.video_token)
        self.newline = None
        if manifest.prompt.video_newline:
            self.newline = self.bundle.tensor(decoder.special_embeddings["image_newline"])
        self.load_s = time.perf_counter() - start

    def open(
        self,
        source: str | os.PathLike[str],
        *,
        fps: float | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> VideoSession:
        """Read, encode and compress a video.

        Args:
            source: A video file, an image, or a folder of images.
            fps: Frames a second to sample, at most the bundle's number of frames in all; even steps where None.
            start_s: Where to start, seconds into the video.
            end_s: Where to end, seconds into the video.

        Raises:
            VideoError: The source is missing or holds no picture.
        """
        vision = self.bundle.manifest.vision
        self.vision.session(vision.encoder)  # loading is not the video's time
        start = time.perf_counter()
        with FrameSampler(
            source,
            vision.num_frames,
            (vision.image_height, vision.image_width),
            resample=vision.resample,
            fps=fps,
            start_s=start_s,
            end_s=end_s,
        ) as sampler:
            encoded = self.vision.encode(sampler)
        return VideoSession(self, encoded, start, sampler.warnings)


class VideoSession:
    """One video in the decoder's cache; questions after the first reuse its prefill.

    Args:
        runner: Owner of the models.
        encoded: The encoder's features of the video.
        opened: `time.perf_counter()` when the video was opened.
        warnings: What the reader had to say about it.
    """

    def __init__(self, runner: Runner, encoded: EncodedVideo, opened: float, warnings: list[str]) -> None:
        self._runner = runner
        self.encoded = encoded
        self.visual: VisualTokens = runner.vision.compress(encoded, runner.method)
        self.span = visual_span(runner.method, self.visual, runner.bundle.manifest.tokens_total, runner.newline)
        self.turns: list[Message] = []
        self._opened: float | None = opened
        self._warnings = warnings

    def ask(self, question: str, **options: Any) -> Answer:
        """The whole answer at once; arguments as for :meth:`stream`."""
        stream = self.stream(question, **options)
        for _ in stream:
            pass
        return stream.result

    def stream(
        self,
        question: str,
        *,
        follow_up: bool = False,
        max_tokens: int | None = None,
        sampling: SamplingConfig | None = None,
    ) -> AnswerStream:
        """Answer piece by piece.

        Args:
            question: Text.
            follow_up: Whether the earlier questions and answers are part of the prompt.
            max_tokens: Most tokens of the answer.
            sampling: How tokens are drawn; greedy where None.

        Raises:
            ConfigError: The question is empty, or the prompt does not fit the decoder.
        """
        if max_tokens is not None and max_tokens < 1:
            raise ConfigError(f"{max_tokens} tokens is not a valid length of an answer: give 1 or more")
        text = question_text(question)
        if not follow_up:
            self.turns = []
        content = [{"type": "text", "text": text}]
        self.turns.append({"role": "user", "content": content if self.turns else [{"type": "video"}, *content]})
        started, self._opened = self._opened or time.perf_counter(), None
        return AnswerStream(
            self, question, started, max_tokens or self._runner.max_tokens, sampling or SamplingConfig()
        )


class AnswerStream:
    """Iterates over the pieces of an answer; :attr:`result` is complete when they have all come."""

    def __init__(
        self, video: VideoSession, question: str, started: float, max_tokens: int, sampling: SamplingConfig
    ) -> None:
        self._video, self._started, self._max_tokens, self._sampling = video, started, max_tokens, sampling
        runner, visual, encoded = video._runner, video.visual, video.encoded
        self.result = Answer(
            question,
            method=runner.method.name,
            tokens_kept=len(visual.positions),
            tokens_total=runner.bundle.manifest.tokens_total,
            frames_s=encoded.frames_s,
            encode_s=encoded.encode_s,
            compress_s=visual.compress_s,
            unknown_words=runner.text.unknown_words(question),
            positions_sha256=hashlib.sha256(visual.positions.astype("<i4").tobytes()).hexdigest(),
            bundle_sha256=runner.bundle.sha256,
            warnings=video._warnings,
        )

    def __iter__(self) -> Iterator[str]:
        video, result, runner = self._video, self.result, self._video._runner
        begun = time.perf_counter()
        rows = assemble(
            runner.text.encode(runner.template.render(video.turns)),
            runner.video_token_id,
            video.span,
            runner.generator.embed,
        )
        logits, result.prefill_tokens = runner.generator.prefill(rows, self._max_tokens)
        first = time.perf_counter()
        result.prefill_s, result.ttft_s = first - begun, first - self._started
        tokens = runner.generator.generate(
            logits, rows.next_position, Sampler(self._sampling), runner.stop_ids, self._max_tokens
        )
        for piece in runner.text.stream(self._count(tokens)):
            result.answer += piece
            yield piece
        result.generate_s = time.perf_counter() - first
        result.finish_reason = "length" if result.tokens_generated == self._max_tokens else "stop"
        if result.tokens_generated > 1:
            result.tokens_per_s = (result.tokens_generated - 1) / result.generate_s
        video.turns.append({"role": "assistant", "content": [{"type": "text", "text": result.answer}]})

    def _count(self, tokens: Iterator[int]) -> Iterator[int]:
        for token in tokens:
            self.result.tokens_generated += 1
            yield token


def select_method(bundle: Bundle, name: str | None, budget: int | None, retention_ratio: float | None) -> MethodEntry:
    """The bundle's entry for what was asked for."""
    manifest = bundle.manifest
    if budget is not None and retention_ratio is not None:
        raise ConfigError("give a budget or a retention ratio, not both")
    if retention_ratio is not None:
        budget = budget_for(retention_ratio, manifest.vision.num_frames, manifest.vision.tokens_per_frame)
    return manifest.method(name, budget)


def generation_defaults(bundle: Bundle) -> tuple[set[int], int]:
    """Stop ids and the length of an answer, from the checkpoint's generation_config.json."""
    config = json.loads(bundle.file("generation_config.json").read_text(encoding="utf-8"))
    stop = config.get("eos_token_id")
    if stop is None:
        raise BundleError(f"{bundle.path}: generation_config.json names no eos_token_id: export the bundle again")
    return set(stop if isinstance(stop, list) else [stop]), config.get("max_new_tokens") or DEFAULT_MAX_TOKENS


def visual_span(method: MethodEntry, visual: VisualTokens, tokens_total: int, newline: np.ndarray | None) -> VisualSpan:
    """The kept tokens, and the closing newline embedding, at the positions the method's mode gives them."""
    original = method.positions == "original"
    offsets = visual.positions if original else np.arange(len(visual.positions))
    length = tokens_total if original else len(visual.positions)
    embeddings = visual.tokens
    if newline is not None:
        embeddings = np.concatenate([embeddings, newline.reshape(1, -1).astype(embeddings.dtype)])
        offsets, length = np.append(offsets, length), length + 1
    return VisualSpan(object(), embeddings, offsets.astype(np.int64), length)
