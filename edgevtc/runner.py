"""Runner: a bundle and a backend answer questions about videos."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from edgevtc.adaptive import AUTO, choosable, margin_threshold, rungs
from edgevtc.answer import Answer
from edgevtc.backends import Backend
from edgevtc.bundle import Bundle, MethodEntry
from edgevtc.decoder.prompt import VisualSpan
from edgevtc.decoder.sampling import MarginSampler, SamplingConfig
from edgevtc.decoder.text import Message, question_text
from edgevtc.errors import ConfigError
from edgevtc.latency import Latency
from edgevtc.loaded import LoadedBundle
from edgevtc.methods import budget_for
from edgevtc.video import FrameSampler
from edgevtc.vision import EncodedVideo, VisualTokens, visual_span

__all__ = ["Answer", "AnswerStream", "Runner", "VideoSession", "select_method"]


class Runner(LoadedBundle):
    """Loads a bundle once and opens videos on it.

    Args:
        bundle: Folder of a bundle; None for the one inside the package.
        method: Compression method; None for the bundle's first.
        budget: Tokens to keep; "auto" answers each question at the smallest budget of the method whose answer
            leaves no doubt, see ``margin``. At most one of ``budget``, ``retention_ratio`` and ``ttft_s``.
        retention_ratio: Share of the T·N tokens to keep, in (0, 1].
        margin: Answer margin below which a budget of "auto" tries the next larger one; as the bundle was calibrated
            for the method, else :data:`edgevtc.adaptive.DEFAULT_MARGIN`, where None.
        ttft_s: Seconds from opening a video to the first token: each video is compressed to the largest budget of
            the method that keeps to it, as measured here, see :class:`edgevtc.latency.Latency`.
        cache_dir: Where measurements are kept; the user's cache folder where None.
        device: One of :data:`edgevtc.backends.DEVICES`, or a backend.
        threads: Threads inside an operator on a CPU; all this process may use where None.
        weight_format: Weight format of the decoder; None for the bundle's first.
        guess: Whether to ask the model also about footage that its bundle knows to be foreign to it.

    Attributes:
        method: What videos are compressed by; of several budgets the smallest with "auto", with ``ttft_s`` the
            largest that is expected to fit.
        load_s: Seconds spent loading the decoder, and measuring where that was asked for.

    Raises:
        BundleError: The bundle is missing, altered or incomplete.
        ConfigError: The bundle holds no such method, budget or weight format, or none of its budgets is fast enough.
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
        budget: int | Literal["auto"] | None = None,
        retention_ratio: float | None = None,
        margin: float | None = None,
        ttft_s: float | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        device: str | Backend = "cpu",
        threads: int | None = None,
        weight_format: str | None = None,
        guess: bool = False,
    ) -> None:
        start = time.perf_counter()
        check_size(budget, retention_ratio, margin, ttft_s)
        super().__init__(bundle, device, threads, weight_format)
        manifest = self.bundle.manifest
        self.guess = guess
        self.margin = margin_threshold(manifest, manifest.method(method).name, margin) if budget == AUTO else None
        if budget == AUTO or ttft_s is not None:
            entries = choosable(manifest, method)
            self.method = (rungs(manifest, method) if budget == AUTO else entries)[0]
        else:
            self.method = select_method(self.bundle, method, budget, retention_ratio)
        # Of several budgets, those that a video may be opened at.
        self._within: tuple[MethodEntry, ...] = ()
        self.ttft_s, self._latency = ttft_s, None
        if ttft_s is not None:
            self._latency = Latency(self, cache_dir)
            self.method = self._latency.largest(entries, ttft_s)
            self._within = tuple(entry for entry in entries if entry.budget <= self.method.budget)
        self.load_s = time.perf_counter() - start

    def methods(self, spent_s: float) -> tuple[MethodEntry, ...]:
        """What a video's questions are answered at, by rising budget: one entry, or with "auto" several.

        Args:
            spent_s: Seconds that reading and encoding the video took.

        Raises:
            ConfigError: No budget's first token comes in time any more.
        """
        if self.margin is not None:
            return rungs(self.bundle.manifest, self.method.name)
        if self._latency is None or self.ttft_s is None:
            return (self.method,)
        return (self._latency.largest(self._within, self.ttft_s, spent_s),)

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
            ConfigError: With ``ttft_s``: reading it took so long that no budget's first token comes in time.
        """
        vision = self.bundle.manifest.vision
        # Loading is not the video's time.
        self.vision.session(vision.encoder)
        for entry in self._within or (self.method,):
            self.vision.session(entry.compressor)
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

    Attributes:
        methods: What questions are answered at, by rising budget: the first whose answer has the runner's margin.
        visual: The tokens of the latest budget.
        span: The same as the decoder sees them.
        turns: The conversation so far: questions that were answered, and their answers.
        domain_distance: How far the clip is from what the model was trained on, where the bundle can tell.
    """

    def __init__(self, runner: Runner, encoded: EncodedVideo, opened: float, warnings: list[str]) -> None:
        self.runner, self.encoded, self.warnings = runner, encoded, warnings
        self.turns: list[Message] = []
        self._opened: float | None = opened
        self._compressed: dict[tuple[str, int], tuple[VisualTokens, VisualSpan]] = {}
        self._compress_s = 0.0
        self.domain_distance = None
        if runner.domain is not None:
            self.domain_distance = runner.domain.distance(encoded.features["frame_tokens"])
        self.methods = runner.methods(time.perf_counter() - opened)
        self.visual, self.span = self.compressed(self.methods[0])

    @property
    def domain_limit(self) -> float | None:
        """The `domain_distance` beyond which the model is not asked; None where it always is."""
        return None if self.runner.domain is None or self.runner.guess else self.runner.domain.limit

    @property
    def foreign(self) -> bool:
        """Whether the model is not asked about the clip."""
        limit, distance = self.domain_limit, self.domain_distance
        return limit is not None and distance is not None and distance > limit

    def compressed(self, method: MethodEntry) -> tuple[VisualTokens, VisualSpan]:
        """The video's tokens by a method at a budget: made once of the features kept, and one span for each.

        A span is what the decoder's cache knows rows by, so rows of one budget are never taken for another's.
        """
        key = method.name, method.budget
        if key not in self._compressed:
            runner = self.runner
            visual = runner.vision.compress(self.encoded, method)
            span = visual_span(method, visual, runner.bundle.manifest.tokens_total, runner.newline)
            self._compressed[key] = visual, span
            self._compress_s += visual.compress_s
        self.visual, self.span = self._compressed[key]
        return self._compressed[key]

    def take_compress_s(self) -> float:
        """Seconds of compression that no answer has counted yet; they are this one's."""
        taken, self._compress_s = self._compress_s, 0.0
        return taken

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
            ConfigError: The question is empty, the prompt does not fit the decoder, or tokens are drawn while the
                budget is chosen by the margin of the most likely ones.
        """
        if max_tokens is not None and max_tokens < 1:
            raise ConfigError(f"{max_tokens} tokens is not a valid length of an answer: give 1 or more")
        sampling = sampling or SamplingConfig()
        if self.runner.margin is not None and sampling.temperature > 0:
            raise ConfigError(
                f"a budget of auto needs greedy answers, whose margin it goes by, and temperature is "
                f"{sampling.temperature:g}: leave it at 0, or give a budget"
            )
        content = [{"type": "text", "text": question_text(question)}]
        # The session's own turns stay as they are until the answer stands.
        turns = list(self.turns) if follow_up else []
        turns.append({"role": "user", "content": content if turns else [{"type": "video"}, *content]})
        started, self._opened = self._opened or time.perf_counter(), None
        return AnswerStream(self, turns, question, started, max_tokens or self.runner.max_tokens, sampling)


class AnswerStream:
    """Iterates over the pieces of an answer; :attr:`result` is complete when they have all come.

    Args:
        video: What is asked about.
        turns: The conversation, ending with the question; it becomes the video's once the answer stands.
        question: As asked.
        started: `time.perf_counter()` that the time to first token counts from.
        max_tokens: Most tokens of the answer.
        sampling: How tokens are drawn.
    """

    def __init__(
        self,
        video: VideoSession,
        turns: list[Message],
        question: str,
        started: float,
        max_tokens: int,
        sampling: SamplingConfig,
    ) -> None:
        self._video, self._turns, self._started = video, turns, started
        runner, encoded = video.runner, video.encoded
        self.result = Answer(
            question,
            margin=runner.margin,
            ttft_limit_s=runner.ttft_s,
            tokens_total=runner.bundle.manifest.tokens_total,
            max_tokens=max_tokens,
            sampling=sampling,
            times_s=encoded.times_s.tolist(),
            frames_sha256=encoded.frames_sha256,
            bundle_sha256=runner.bundle.sha256,
            weight_format=runner.weight_format,
            domain_distance=video.domain_distance,
            domain_limit=video.domain_limit,
            device=runner.backend.name,
            backend=runner.backend.runtime,
            frames_s=encoded.frames_s,
            encode_s=encoded.encode_s,
            unknown_words=runner.text.unknown_words(question),
        )

    def __iter__(self) -> Iterator[str]:
        video, result = self._video, self.result
        for piece in self._pieces():
            result.answer += piece
            yield piece
        video.turns = [*self._turns, {"role": "assistant", "content": [{"type": "text", "text": result.answer}]}]

    def _pieces(self) -> Iterator[str]:
        """The answer at the smallest budget whose margin suffices; nothing of an answer below it is shown."""
        domain = self._video.runner.domain
        if domain is not None and self._video.foreign:
            yield self._decline(domain.answer)
            return
        *lower, last = self._video.methods
        for method in lower:
            least = self._video.runner.margin
            held = list(self._attempt(method, least))
            if least is None or self.result.answer_margin >= least:
                self.result.ttft_s = time.perf_counter() - self._started
                yield from held
                return
        yield from self._attempt(last, None)

    def _decline(self, answer: str) -> str:
        """The answer about footage that is foreign to the model, which is not asked."""
        self._keep(self._video.methods[0])
        self.result.finish_reason = "foreign"
        self.result.ttft_s = time.perf_counter() - self._started
        return answer

    def _keep(self, method: MethodEntry) -> VisualSpan:
        """The video's tokens by a method at a budget, put on record."""
        result = self.result
        visual, span = self._video.compressed(method)
        result.method, result.budget, result.tokens_kept = method.name, method.budget, len(visual.positions)
        result.budgets_tried.append(method.budget)
        result.positions_sha256 = hashlib.sha256(visual.positions.astype("<i4").tobytes()).hexdigest()
        if visual.segments is not None:
            result.segments = np.flatnonzero(np.diff(visual.segments, prepend=-1)).tolist()
        result.compress_s += self._video.take_compress_s()
        result.warnings = [*self._video.warnings, *self._video.runner.warnings()]  # by now each graph is loaded
        return span

    def _attempt(self, method: MethodEntry, least: float | None) -> Iterator[str]:
        """The answer at one budget, cut off where its margin falls below ``least``."""
        result, runner = self.result, self._video.runner
        span = self._keep(method)
        begun = time.perf_counter()
        rows = runner.rows(self._turns, span)
        logits, computed = runner.generator.prefill(rows, result.max_tokens)
        first = time.perf_counter()
        result.prefill_s += first - begun
        result.prefill_tokens += computed
        result.ttft_s = first - self._started
        sampler = MarginSampler(result.sampling, runner.stop_ids)
        tokens = runner.generator.generate(logits, rows.next_position, sampler, runner.stop_ids, result.max_tokens)
        result.tokens_generated = 0
        yield from runner.text.stream(self._counted(tokens, sampler, least))
        generate_s = time.perf_counter() - first
        result.generate_s += generate_s
        result.answer_margin = sampler.margin
        result.finish_reason = "length" if result.tokens_generated == result.max_tokens else "stop"
        result.tokens_per_s = (result.tokens_generated - 1) / generate_s if result.tokens_generated > 1 else 0.0

    def _counted(self, tokens: Iterator[int], sampler: MarginSampler, least: float | None) -> Iterator[int]:
        for token in tokens:
            if least is not None and sampler.margin < least:
                return
            self.result.tokens_generated += 1
            yield token


def check_size(
    budget: int | Literal["auto"] | None, retention_ratio: float | None, margin: float | None, ttft_s: float | None
) -> None:
    """Refuse what says twice, or not at all, how many tokens to keep."""
    if sum(value is not None for value in (budget, retention_ratio, ttft_s)) > 1:
        raise ConfigError("give one of a budget, a retention ratio and a time to first token, not several")
    if margin is not None and budget != AUTO:
        raise ConfigError("a margin decides only where the budget is auto: give --budget auto, or no margin")
    if ttft_s is not None and not ttft_s > 0:
        raise ConfigError(f"a time to first token of {ttft_s} s is not valid: give a number above 0")


def select_method(bundle: Bundle, name: str | None, budget: int | None, retention_ratio: float | None) -> MethodEntry:
    """The bundle's entry for what was asked for."""
    manifest = bundle.manifest
    if budget is not None and retention_ratio is not None:
        raise ConfigError("give a budget or a retention ratio, not both")
    if retention_ratio is not None:
        budget = budget_for(retention_ratio, manifest.vision.num_frames, manifest.vision.tokens_per_frame)
    return manifest.method(name, budget)
