"""Holding a bundle to torch before it is finished: reference inputs, torch's outputs for them, and the verdict."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgevtc.bundle import Bundle, FolderWriter, MethodEntry, VerificationEntry
from edgevtc.compressors import Compressor
from edgevtc.decoder.prompt import Rows, assemble
from edgevtc.decoder.sampling import lead
from edgevtc.errors import ExportError
from edgevtc.eval.world import World
from edgevtc.exporter.progress import Progress
from edgevtc.exporter.reference import ReferenceDecoder
from edgevtc.exporter.streamed import StreamedBackend
from edgevtc.measure.compare import compare_decisions, difference
from edgevtc.measure.references import NOISE_LEVELS, MethodReference, References, decoder_rows, new_projection
from edgevtc.measure.verify import ANSWER_TOKENS, Check, Verifier, answer_limit, greedy_answer
from edgevtc.models import ModelAdapter, Vision
from edgevtc.runner import Runner
from edgevtc.video import iter_frames
from edgevtc.vision import VisualTokens, visual_span

__all__ = ["DEFAULT_QUESTION", "REFERENCES", "TorchReference", "encode", "reference_frames", "verify_draft"]

#: Asked where the recipe gives no examples.
DEFAULT_QUESTION = "what happens in the video"

#: Files of a reference: the bundle's own, and the default method's tokens, which only the export needs.
REFERENCES, DEFAULT_TOKENS = "references.npz", "default_tokens.npz"

#: Arrays of the latter.
VISUAL = ("tokens", "positions", "counts", "assignment")

#: Draws of the least noise: one turns a near tie round only every other time.
DRAWS = 8

#: Scene of the synthetic world whose frames are used where no clip is given.
SCENE_SEED = 1


def reference_frames(model: ModelAdapter, num_frames: int, clip: Path | None) -> tuple[np.ndarray, str]:
    """Frames [T, H, W, 3] uint8 of a clip, or of a scene of the synthetic world, and where they come from.

    Noise would not do: every decision about it is a near tie.

    Raises:
        VideoError: The clip cannot be read.
    """
    height, width = model.geometry.image_height, model.geometry.image_width
    if clip is not None:
        frames = iter_frames(clip, num_frames, (height, width), resample=model.preprocessing.resample)
        return np.stack([frame.image for frame in frames]), clip.name
    world = World("dev", SCENE_SEED)
    scene = world.scene()
    ticks = np.linspace(0, scene.ticks - 1, num_frames, dtype=np.float32)
    return world.renderer.frames(scene, ticks, (width, height)), f"synthetic world, dev scene {SCENE_SEED}"


class TorchReference:
    """What torch makes of the frames.

    Args:
        model: The checkpoint.
        content: Of the bundle's reference file.
        visual: The default method's tokens.
    """

    def __init__(self, model: ModelAdapter, content: References, visual: VisualTokens) -> None:
        self.content, self._visual = content, visual
        self._decoder = ReferenceDecoder(model.text_config, model.decoder_weights())
        self._video_token = model.prompt.video_token_id
        self._newline = model.special_embeddings()["image_newline"] if model.prompt.video_newline else None

    @classmethod
    @torch.no_grad()
    def compute(
        cls,
        model: ModelAdapter,
        features: Mapping[str, Tensor],
        compressors: Sequence[Compressor],
        frames: np.ndarray,
        prompt_ids: Sequence[int],
    ) -> TorchReference:
        """Run torch, but for the vision tower, which has run and need not be in memory any more.

        Args:
            model: The checkpoint.
            features: What its vision part makes of the frames, see :func:`encode`.
            compressors: As exported; the first is the bundle's default.
            frames: [T, H, W, 3] uint8.
            prompt_ids: Token ids of the rendered chat template.
        """
        projection = new_projection(model.geometry.hidden_size)
        methods = {}
        for compressor in reversed(compressors):
            tokens, positions, counts, assignment, *_ = reduce(compressor, features)
            stability, drift = np.ones((len(NOISE_LEVELS), 2), np.float32), np.zeros(len(NOISE_LEVELS), np.float32)
            methods[compressor.key] = MethodReference(positions, assignment, tokens @ projection, stability, drift)
        for row, level in enumerate(NOISE_LEVELS):
            for draw in range(1 if row else DRAWS):
                noisy = perturbed(features, level, draw)
                for compressor in compressors:
                    method = methods[compressor.key]
                    others, moved, _, elsewhere, *_ = reduce(compressor, noisy)
                    found = compare_decisions(moved, elsewhere, method.positions, method.assignment)
                    drifted = difference((others @ projection)[found.slots], method.tokens[found.expected_slots]).worst
                    # What little noise moves, more may leave in place by chance.
                    rows, drifts = method.stability[row:], method.drift[row:]
                    np.minimum(rows, (found.overlap, found.agreement), out=rows)
                    np.maximum(drifts, min(drifted, 1.0), out=drifts)
        content = References(
            frames=frames,
            features={name: value.numpy() for name, value in features.items()},
            projection=projection,
            methods=methods,
            prompt_ids=np.array(prompt_ids, np.int32),
            prompt_embeddings=np.empty(0, np.float32),
            logits=np.empty(0, np.float32),
        )
        reference = cls(model, content, VisualTokens(tokens, positions, counts, assignment, 0.0))
        reference.run_decoder()
        return reference

    def run_decoder(self) -> None:
        """Fill in what the decoder makes of the prompt."""
        embeddings = self._decoder.embed(self.content.prompt_ids.tolist()) @ self.content.projection
        rows = decoder_rows(self.content, self._video_token, self._newline, self._decoder.embed)
        self.content = replace(self.content, prompt_embeddings=embeddings, logits=self._decoder.logits(rows)[0])

    def write(self, writer: FolderWriter) -> None:
        """Write the bundle's reference file, and the default method's tokens beside it."""
        writer.file(REFERENCES, self.content.to_bytes())
        stream = io.BytesIO()
        np.savez(stream, **{name: getattr(self._visual, name) for name in VISUAL})
        writer.file(DEFAULT_TOKENS, stream.getvalue())

    @classmethod
    def read(cls, model: ModelAdapter, folder: Path) -> TorchReference:
        """Read what :meth:`write` wrote."""
        with np.load(folder / DEFAULT_TOKENS) as stored:
            visual = VisualTokens(**{name: stored[name] for name in VISUAL}, compress_s=0.0)
        return cls(model, References.read(folder / REFERENCES), visual)

    def answer_margin(self, method: MethodEntry, answer: Sequence[int], stop_ids: Collection[int]) -> float:
        """Smallest lead of an answer's tokens over all others, relative to the largest logit, all the way in torch.

        Negative where torch answers otherwise.

        Args:
            method: The bundle's default.
            answer: Token ids; one of `stop_ids` has to follow, unless the answer is `ANSWER_TOKENS` long.
            stop_ids: Ids that end an answer.
        """
        frames, tokens_per_frame = self.content.features["frame_tokens"].shape[:2]
        span = visual_span(method, self._visual, frames * tokens_per_frame, self._newline)
        prompt = assemble(self.content.prompt_ids.tolist(), self._video_token, span, self._decoder.embed)
        count = len(answer)
        rows = Rows(
            keys=[*prompt.keys, *answer],
            embeddings=np.concatenate([prompt.embeddings, self._decoder.embed(answer)]),
            positions=np.concatenate([prompt.positions, prompt.next_position + np.arange(count)]),
            next_position=prompt.next_position + count,
        )
        steps = self._decoder.logits(rows, count + 1)[:ANSWER_TOKENS]
        wanted: list[Collection[int]] = [*([token] for token in answer), stop_ids]
        return min(lead(logits, ids) for logits, ids in zip(steps, wanted, strict=False))


@torch.no_grad()
def encode(vision: Vision, frames: np.ndarray) -> dict[str, Tensor]:
    """What a vision part makes of frames [T, H, W, 3] uint8: output → [T, …]."""
    # Frame by frame: what a tower needs for many at once is many times what it needs for one.
    parts = [vision(frame[None]) for frame in torch.from_numpy(frames)]
    return {name: torch.cat(column) for name, column in zip(vision.outputs, zip(*parts, strict=True), strict=True)}


def perturbed(features: Mapping[str, Tensor], level: float, draw: int) -> dict[str, Tensor]:
    """Features with normal noise whose largest values, at three deviations, are `level` of the features' largest."""
    generator = torch.Generator().manual_seed(draw)
    return {
        name: value + level / 3 * value.abs().max() * torch.randn(value.shape, generator=generator)
        for name, value in features.items()
    }


def reduce(compressor: Compressor, features: Mapping[str, Tensor]) -> list[np.ndarray]:
    """Tokens, positions, counts, assignment and, where the method divides the clip, segments."""
    return [value.numpy() for value in compressor(*(features[name] for name in compressor.spec.needs))]


def verify_draft(
    draft: Bundle, entry: VerificationEntry, reference: TorchReference, progress: Progress
) -> VerificationEntry:
    """Hold every graph of a bundle to torch, on a CPU, then one answer; returns the entry with what was found.

    Of the language model one layer is in memory at a time, here as in torch, and the two run one after the other.

    Raises:
        ExportError: Something differs by more than its tolerance; each is named with the difference.
    """
    backend = StreamedBackend()
    verifier = Verifier(draft, backend)
    checks = []
    for check in verifier.run(progress):
        checks.append(check)
        progress.done(check.part)
    differences = {graph: 0.0 for check in checks if (graph := check.part) in draft.manifest.files}
    for check in checks:
        if check.part in differences:
            differences[check.part] = max(differences[check.part], check.worst_difference or 0.0)
    require_passed(checks)
    progress("verifying an answer")
    runner = Runner(draft.path, device=backend)
    tokens, answer = greedy_answer(runner, reference.content.frames, entry.question, verifier.features)
    margin = reference.answer_margin(runner.method, tokens, runner.stop_ids)
    tolerance = answer_limit(draft.manifest)
    if margin < -tolerance:
        require_passed(
            [Check("answer", "", False, reason=f"torch would not answer {answer!r}: it lags by {-margin:.2g}")]
        )
    progress.done("answer")
    return replace(entry, answer=answer, answer_margin=margin, differences=differences)


def require_passed(checks: Sequence[Check]) -> None:
    """Raise unless every check passed."""
    if failed := [check for check in checks if not check.passed]:
        reasons = "; ".join(f"{check.part}: {check.reason}" for check in failed[:5])
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise ExportError(f"verification against torch FAILED, so no bundle was written: {reasons}{more}")
