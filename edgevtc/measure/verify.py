"""Whether a bundle computes on a device what torch computed when it was exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgevtc.backends import Backend, create_backend
from edgevtc.bundle import Bundle, Manifest, MethodEntry, VerificationEntry, VisionEntry
from edgevtc.decoder.generator import Generator
from edgevtc.decoder.prompt import assemble
from edgevtc.decoder.sampling import Sampler, SamplingConfig, lead
from edgevtc.decoder.text import ChatTemplate, TextCodec
from edgevtc.errors import BackendError, BundleError, choices
from edgevtc.measure.compare import Difference, compare_decisions, difference
from edgevtc.measure.declared import (
    Shape,
    compressor_shapes,
    decoder_shapes,
    encoder_shapes,
    fused_shapes,
    require_shapes,
    require_whole,
)
from edgevtc.measure.references import NOISE_LEVELS, MethodReference, References, decoder_rows, noise_level
from edgevtc.methods import method_key
from edgevtc.runner import Runner
from edgevtc.video import Frame
from edgevtc.vision import EncodedVideo, visual_span

__all__ = ["ANSWER_TOKENS", "DECODER_LIMITS", "Check", "Verifier", "answer_limit", "greedy_answer", "prompt_ids"]

#: Largest difference of a vision graph from torch, relative to the largest value: float32 in another order of
#: summation. Elsewhere nothing was measured yet, and room is left for products of ten bits of mantissa.
CPU_LIMIT, DEVICE_LIMIT = 1e-3, 2e-2

#: Arithmetic of a bundle's vision graphs that is coarser than float32 → what passes: largest difference from torch in
#: float32 relative to the largest value, least cosine of the visual tokens.
COARSE_LIMITS = {"float16": (2e-2, 0.9995), "w8a8": (0.2, 0.99)}

#: By how much fewer positions, and places of inputs, may be equal than survived noise of the encoder's own size: near
#: ties fall either way, and the noise was drawn once. Of positions at least two.
OVERLAP_SLACK, AGREEMENT_SLACK, POSITIONS_SLACK = 0.05, 0.1, 2
DEFAULT_SLACKS = OVERLAP_SLACK, AGREEMENT_SLACK

#: The same where a bundle's own arithmetic is coarser than float32: float16 is to keep 99 % of the positions, and the
#: noise of int8 has larger outliers than what was drawn.
COARSE_SLACKS = {"float16": (0.01, AGREEMENT_SLACK), "w8a8": (0.2, 0.4)}

#: Token embeddings are stored as float16.
EMBEDDING_LIMIT = 1e-3

#: Weight format → largest difference of the logits from the unquantized model's, relative to the largest logit.
DECODER_LIMITS = {"fp32": 1e-3, "int8": 0.1, "w8a8": 0.2, "int4": 0.5}

#: A device may be off by this many times what the export was, plus this share of the limit.
EXPORT_FACTOR, CPU_SLACK, DEVICE_SLACK = 2.0, 0.1, 0.5

#: Length of the answer that is compared.
ANSWER_TOKENS = 8


@dataclass(frozen=True)
class Check:
    """One part of a bundle, compared.

    Attributes:
        part: Graph file, `prompt`, `token embeddings` or `answer`.
        output: What of it was compared.
        passed: Whether it is as it should be; None where the device cannot run it.
        worst_difference: See :class:`edgevtc.measure.compare.Difference`.
        mean_difference: Likewise.
        cosine: Likewise.
        tolerance: Largest worst difference that passes.
        overlap: Share of the expected positions a compressor kept.
        least_overlap: Smallest one that passes.
        margin: Lead of the most likely token over the next, relative to the largest logit.
        reason: Why it did not pass, or was not run.
    """

    part: str
    output: str
    passed: bool | None
    worst_difference: float | None = None
    mean_difference: float | None = None
    cosine: float | None = None
    tolerance: float | None = None
    overlap: float | None = None
    least_overlap: float | None = None
    margin: float | None = None
    reason: str = ""

    @property
    def status(self) -> str:
        """PASSED, FAILED or SKIPPED."""
        return "SKIPPED" if self.passed is None else "PASSED" if self.passed else "FAILED"


class Verifier:
    """Runs a bundle's graphs on its own reference inputs.

    Args:
        bundle: The bundle.
        device: One of :data:`edgevtc.backends.DEVICES`, or a backend.
        threads: Threads inside an operator on a CPU.

    Raises:
        BundleError: The bundle carries no references, they are damaged, or of other sizes than its manifest states.
        BackendError: The device cannot serve anything.
    """

    def __init__(self, bundle: Bundle, device: str | Backend = "cpu", threads: int | None = None) -> None:
        self.bundle, self.device, self.threads = bundle, device, threads
        self.entry = verification(bundle)
        self.references = References.read(bundle.file(self.entry.references))
        require_whole(bundle, self.references)
        self.backend = create_backend(device, threads)
        self.text = TextCodec(bundle.file("tokenizer.json"))
        on_cpu = self.backend.name == "cpu"
        self.limit, self.slack = (CPU_LIMIT, CPU_SLACK) if on_cpu else (DEVICE_LIMIT, DEVICE_SLACK)
        vision = bundle.manifest.vision
        arithmetic = arithmetic_of(vision)
        coarse, self.least_cosine = COARSE_LIMITS.get(arithmetic, (0.0, 0.0))
        self.vision_limit = max(self.limit, coarse)
        self.compressor_limit = max(self.limit, COARSE_LIMITS.get(vision.compute_dtype, (0.0, 0.0))[0])
        # Compressors compute in floats also behind an encoder that does not, and are given torch's own features.
        self.vision_slacks, self.compressor_slacks = (
            COARSE_SLACKS[kind] if kind in COARSE_SLACKS and (on_cpu or kind == "w8a8") else DEFAULT_SLACKS
            for kind in (arithmetic, vision.compute_dtype)
        )
        self._noise = self.vision_limit  # of the encoder, where the device has no encoder to measure
        self.features: dict[str, np.ndarray] | None = None  # what the encoder made of the frames, once it did

    def run(self, progress: Callable[[str], None] = lambda step: None) -> Iterator[Check]:
        """Every check, one part at a time; a part that cannot run does not keep the others from it."""
        manifest = self.bundle.manifest
        yield from self._guard(manifest.vision.encoder, self._encoder, progress)
        for method in manifest.methods:
            yield from self._guard(method.compressor, partial(self._compressor, method), progress)
            if method.fused:
                yield from self._guard(method.fused, partial(self._fused, method), progress)
        yield from self._guard("prompt", self._prompt, progress)
        yield from self._guard("token embeddings", self._embeddings, progress)
        for form, graph in manifest.decoder.graphs.items():
            yield from self._guard(graph, partial(self._decoder, form, graph), progress)
        if self.entry.differences:  # a bundle that is still being exported has no answer yet
            yield from self._guard("answer", self._answer, progress)

    def _guard(
        self, part: str, check: Callable[[], Iterator[Check]], progress: Callable[[str], None]
    ) -> Iterator[Check]:
        progress(f"verifying {part}")
        try:
            if part in self.bundle.manifest.files and (reason := self.backend.supports(self.bundle.file(part))):
                yield Check(part, "", None, reason=reason)
            else:
                yield from check()
        except (BackendError, BundleError) as error:
            yield Check(part, "", False, reason=str(error))

    def _encoder(self) -> Iterator[Check]:
        vision, frames = self.bundle.manifest.vision, self.references.frames
        session = self.backend.load(self.bundle.path, self.bundle.file(vision.encoder))
        require_shapes(vision.encoder, session, encoder_shapes(vision))
        parts: dict[str, list[np.ndarray]] = {name: [] for name in session.outputs}
        for start in range(0, len(frames), vision.frames_per_call):
            session.bind("frames", self.backend.tensor(frames[start : start + vision.frames_per_call]))
            session.run()
            for name, values in parts.items():
                values.append(session.output(name).numpy().copy())
        self.features = {name: np.concatenate(values) for name, values in parts.items()}
        found = {
            name: difference(self.features.get(name, np.empty(0)), expected)
            for name, expected in self.references.features.items()
        }
        self._noise = max(apart.worst for apart in found.values())
        for name, apart in found.items():
            least = self.least_cosine if name == "frame_tokens" else 0.0
            yield self._check(vision.encoder, name, apart, self.vision_limit, least_cosine=least)

    def _compressor(self, method: MethodEntry) -> Iterator[Check]:
        inputs = {name: self.references.features[name] for name in method.needs}
        shapes = compressor_shapes(self.bundle.manifest.vision, method)
        noise, limit, slacks = NOISE_LEVELS[0], self.compressor_limit, self.compressor_slacks
        yield self._reduced(method.compressor, method, inputs, shapes, noise, limit, slacks)

    def _fused(self, method: MethodEntry) -> Iterator[Check]:
        inputs, shapes = {"frames": self.references.frames}, fused_shapes(self.bundle.manifest.vision, method)
        limit, slacks, least = self.vision_limit, self.vision_slacks, self.least_cosine
        yield self._reduced(method.fused, method, inputs, shapes, self._noise, limit, slacks, least)

    def _reduced(
        self,
        graph: str,
        method: MethodEntry,
        inputs: Mapping[str, np.ndarray],
        shapes: Mapping[str, Shape],
        noise: float,
        limit: float,
        slacks: tuple[float, float],
        least_cosine: float = 0.0,
    ) -> Check:
        """One graph that ends in B tokens: its decisions, and its tokens where they were made of the same inputs.

        Noise is how far off, at most, the features are that the decisions are made on.
        """
        session = self.backend.load(self.bundle.path, self.bundle.file(graph))
        require_shapes(graph, session, shapes)
        for name, value in inputs.items():
            session.bind(name, self.backend.tensor(value))
        session.run()
        tokens, positions, counts, assignment = (
            session.output(name).numpy() for name in ("tokens", "positions", "counts", "assignment")
        )
        expected = self.references.methods[method_key(method.name, method.budget)]
        decisions = compare_decisions(positions, assignment, expected.positions, expected.assignment)
        least_overlap, least_agreement = firmness(expected, noise, slacks)
        projected = tokens.astype(np.float32) @ self.references.projection
        found = difference(projected[decisions.slots], expected.tokens[decisions.expected_slots])
        reason = ""
        if decisions.overlap < least_overlap or decisions.agreement < least_agreement:
            reason = (
                f"{decisions.overlap:.1%} of the positions are kept and {decisions.agreement:.1%} of the tokens go "
                f"where they should, {least_overlap:.1%} and {least_agreement:.1%} are asked for"
            )
        elif not stands_for_itself(positions, assignment):
            reason = "two slots stand for one token, or a slot for a token that is folded into another"
        elif not np.array_equal(counts, np.bincount(assignment[assignment >= 0], minlength=method.budget)):
            reason = "counts do not follow from the assignment"
        elif "segments" in session.outputs and not is_division(session.output("segments").numpy(), assignment):
            reason = "segments are no runs of the clip's frames"
        return self._check(
            graph,
            "tokens",
            found,
            limit,
            drift=float(expected.drift[noise_level(noise)]),
            least_cosine=least_cosine,
            overlaps=(decisions.overlap, least_overlap),
            reason=reason,
        )

    def _prompt(self) -> Iterator[Check]:
        same = prompt_ids(self.bundle.path, self.text, self.entry.question) == self.references.prompt_ids.tolist()
        reason = "" if same else "tokenizer.json and chat_template.jinja make other tokens of the question"
        yield Check("prompt", "token ids", same, reason=reason)

    def _embeddings(self) -> Iterator[Check]:
        table = self.bundle.tensor(self.bundle.manifest.decoder.embeddings)
        found = table[self.references.prompt_ids].astype(np.float32) @ self.references.projection
        apart = difference(found, self.references.prompt_embeddings)
        yield self._check("token embeddings", "of the prompt", apart, EMBEDDING_LIMIT)

    def _decoder(self, form: str, graph: str) -> Iterator[Check]:
        manifest = self.bundle.manifest
        session = self.backend.load(self.bundle.path, self.bundle.file(graph))
        if form not in DECODER_LIMITS:
            raise BundleError(f"the manifest has a decoder in {form!r}, which is no format: {choices(DECODER_LIMITS)}")
        require_shapes(graph, session, decoder_shapes(manifest.decoder))
        generator = Generator(self.backend, session, manifest.decoder, self.bundle.tensor(manifest.decoder.embeddings))
        newline = None
        if manifest.prompt.video_newline:
            newline = self.bundle.tensor(manifest.decoder.special_embeddings["image_newline"])
        video = self.text.token_id(manifest.prompt.video_token)
        logits, _ = generator.prefill(decoder_rows(self.references, video, newline, generator.embed), 1)
        expected = self.references.logits
        margin = lead(expected, (int(expected.argmax()),))
        limit = max(DECODER_LIMITS[form], self.limit)
        yield self._check(graph, "logits", difference(logits, expected), limit, margin=margin)

    def _answer(self) -> Iterator[Check]:
        runner = Runner(self.bundle.path, device=self.device, threads=self.threads)
        _, found = greedy_answer(runner, self.references.frames, self.entry.question, self.features)
        tolerance = answer_limit(self.bundle.manifest, self.limit, self.slack)
        reason, passed = "", found == self.entry.answer
        if not passed:
            reason = f"the answer is {found!r} instead of {self.entry.answer!r}"
            if self.entry.answer_margin < tolerance:
                passed, reason = True, f"{reason}, which the model itself is undecided between"
        yield Check("answer", repr(found), passed, margin=self.entry.answer_margin, reason=reason)

    def _check(
        self,
        part: str,
        output: str,
        found: Difference,
        limit: float,
        *,
        drift: float = 0.0,
        least_cosine: float = 0.0,
        overlaps: tuple[float | None, float | None] = (None, None),
        margin: float | None = None,
        reason: str = "",
    ) -> Check:
        tolerance = max(narrowed(limit, self.entry.differences.get(part, limit), self.slack), drift)
        if not reason and not found.worst <= tolerance:
            reason = f"{output} differ by {found.worst:.2g} of the largest value, {tolerance:.2g} is allowed"
        if not reason and not found.cosine >= least_cosine:
            reason = f"{output} have the cosine {found.cosine:.5f} with those of torch, {least_cosine} is asked for"
        return Check(
            part, output, not reason, found.worst, found.mean, found.cosine, tolerance, *overlaps, margin, reason
        )


def stands_for_itself(positions: np.ndarray, assignment: np.ndarray) -> bool:
    """Whether the token at positions [B] of each slot goes into it by assignment [T, N]: then none stands twice."""
    inside = bool(((positions >= 0) & (positions < assignment.size)).all())
    return inside and np.array_equal(assignment.reshape(-1)[positions], np.arange(len(positions)))


def is_division(segments: np.ndarray, assignment: np.ndarray) -> bool:
    """Whether segments [T] number runs of the frames of assignment [T, N] from 0 on.

    What follows from where they begin is compared already: positions and assignment.
    """
    steps = np.diff(segments, prepend=0)
    return segments.shape == assignment.shape[:1] and segments[0] == 0 and bool(np.isin(steps, (0, 1)).all())


def firmness(
    expected: MethodReference, noise: float, slacks: tuple[float, float] = DEFAULT_SLACKS
) -> tuple[float, float]:
    """Smallest shares of equal positions, and of inputs in their places, that decisions on noisy features may have."""
    if expected.stability.min() == 1:  # no noise moves them: they do not depend on the video
        return 1.0, 1.0
    overlap, agreement = expected.stability[noise_level(noise)].tolist()
    return overlap - max(slacks[0], POSITIONS_SLACK / len(expected.positions)), agreement - slacks[1]


def arithmetic_of(vision: VisionEntry) -> str:
    """What the products of visual tokens are computed in: float32, float16 or w8a8."""
    return vision.compute_dtype if vision.weight_format == "float" else vision.weight_format


def narrowed(limit: float, exported: float, slack: float) -> float:
    """A limit as what the export measured narrows it: a device has no reason to be much further off."""
    return min(limit, EXPORT_FACTOR * exported + slack * limit)


def answer_limit(manifest: Manifest, floor: float = CPU_LIMIT, slack: float = CPU_SLACK) -> float:
    """Lead of an answer's token, relative to the largest logit, that a bundle's own arithmetic may turn round.

    By what the export measured of the default decoder and, where it is coarser than float32, of the encoder: twice,
    for two tokens may move towards one another. By their limits alone while the bundle is being exported.

    Args:
        manifest: The bundle's.
        floor: Limit of a graph in float32 on the device.
        slack: Of this share of a limit a device may be further off than the export was.
    """
    form, graph = next(iter(manifest.decoder.graphs.items()))
    limits = {graph: max(DECODER_LIMITS[form], floor)}
    if (kind := arithmetic_of(manifest.vision)) in COARSE_LIMITS:
        limits[manifest.vision.encoder] = COARSE_LIMITS[kind][0]
    measured = manifest.verification.differences if manifest.verification is not None else {}
    if not measured:
        return max(limits.values())
    return 2 * max(narrowed(limit, measured.get(part, limit), slack) for part, limit in limits.items())


def verification(bundle: Bundle) -> VerificationEntry:
    """The manifest's entry.

    Raises:
        BundleError: There is none.
    """
    if (entry := bundle.manifest.verification) is None:
        raise BundleError(f"{bundle.path} carries nothing to verify it by: export it again with this edgevtc")
    return entry


def prompt_ids(folder: Path, text: TextCodec, question: str) -> list[int]:
    """Token ids of a bundle's chat template with one video and a question."""
    template = ChatTemplate.read(folder / "chat_template.jinja")
    content = [{"type": "video"}, {"type": "text", "text": question}]
    return text.encode(template.render([{"role": "user", "content": content}]))


def greedy_answer(
    runner: Runner, frames: np.ndarray, question: str, features: dict[str, np.ndarray] | None = None
) -> tuple[list[int], str]:
    """Token ids and text of the most likely answer about frames [T, H, W, 3], at most `ANSWER_TOKENS` long.

    Features are what the bundle's encoder has made of the frames already, most of the work, or None.
    """
    if features is None:
        encoded = runner.vision.encode(Frame(index, float(index), image) for index, image in enumerate(frames))
    else:
        encoded = EncodedVideo(features, np.arange(len(frames), dtype=float), frames_s=0.0, encode_s=0.0)
    visual = runner.vision.compress(encoded, runner.method)
    span = visual_span(runner.method, visual, runner.bundle.manifest.tokens_total, runner.newline)
    ids = prompt_ids(runner.bundle.path, runner.text, question)
    rows = assemble(ids, runner.video_token_id, span, runner.generator.embed)
    logits, _ = runner.generator.prefill(rows, ANSWER_TOKENS)
    sampler = Sampler(SamplingConfig())
    tokens = list(runner.generator.generate(logits, rows.next_position, sampler, runner.stop_ids, ANSWER_TOKENS))
    return tokens, "".join(runner.text.stream(iter(tokens)))
