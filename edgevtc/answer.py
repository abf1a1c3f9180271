"""An answer with the account of its making, and the receipt by which it can be made again."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgevtc import __version__
from edgevtc.decoder.sampling import SamplingConfig

__all__ = ["Answer"]


@dataclass
class Answer:
    """An answer with the account of its making; docs/ask.md says what of it is equal on every backend.

    All times are seconds of wall time. Where several budgets were tried, `compress_s`, `prefill_s`, `prefill_tokens`
    and `generate_s` count all of them.

    Attributes:
        question: As asked.
        answer: The text.
        method: Compression method.
        budget: B, visual tokens to keep; of several tried the one answered at.
        budgets_tried: Those an answer was begun at, in order; the last is `budget`.
        answer_margin: Least lead of a token of the answer, and of the stop that ends it, over all others, relative
            to the largest logit; negative where a draw took a less likely one.
        margin: Least `answer_margin` that a budget below the largest was answered at; None for a fixed budget.
        ttft_limit_s: Time to first token that the budget was chosen for; None where it was not.
        tokens_kept: Visual tokens the decoder saw; always `budget`.
        tokens_total: T·N, visual tokens before compression.
        tokens_generated: Length of the answer in tokens.
        max_tokens: Most tokens it could have.
        finish_reason: `stop` (the model ended it), `length` (`max_tokens` did), or `foreign` (the model was not asked:
            the clip is beyond `domain_limit`).
        domain_distance: How far the clip is from what the model was trained on; None where the bundle does not say.
        domain_limit: Distance beyond which the model is not asked, unless it is to guess; None where it always is.
        sampling: How tokens were drawn.
        segments: First frame of each segment the method divided the clip into; None where it does not.
        times_s: [T] seconds into the video of the frames looked at.
        frames_sha256: Hash of those frames as the encoder was given them, [T, H, W, 3] uint8.
        positions_sha256: Hash of the kept positions, [B] int32: the same on every backend that decided alike.
        bundle_sha256: Hash of the bundle's manifest, which lists the hash of every file.
        weight_format: Weight format of the decoder.
        device: Where graphs ran.
        backend: Library that ran them, with its version.
        edgevtc_version: Version of this package.
        frames_s: Reading, decoding and resizing frames; runs beside `encode_s`.
        encode_s: Vision encoder.
        compress_s: Compressor; 0 where an earlier question's tokens served.
        prefill_s: Decoder over the part of the prompt that was not in its cache yet.
        prefill_tokens: Length of that part.
        generate_s: Decoder from the first token to the last.
        ttft_s: Time to first token: from opening the video, or for a later question from asking it. Where budgets
            are tried, to the first token of the answer that is given.
        tokens_per_s: Tokens after the first, per second; 0 for an answer of one token.
        unknown_words: Words of the question that are outside the model's vocabulary.
        warnings: What the reader had to say about the video, and of which graphs the device leaves a part to the CPU.
    """

    question: str
    answer: str = ""
    method: str = ""
    budget: int = 0
    budgets_tried: list[int] = field(default_factory=list)
    answer_margin: float = 0.0
    margin: float | None = None
    ttft_limit_s: float | None = None
    tokens_kept: int = 0
    tokens_total: int = 0
    tokens_generated: int = 0
    max_tokens: int = 0
    finish_reason: str = "stop"
    domain_distance: float | None = None
    domain_limit: float | None = None
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    segments: list[int] | None = None
    times_s: list[float] = field(default_factory=list)
    frames_sha256: str = ""
    positions_sha256: str = ""
    bundle_sha256: str = ""
    weight_format: str = ""
    device: str = ""
    backend: str = ""
    edgevtc_version: str = __version__
    frames_s: float = 0.0
    encode_s: float = 0.0
    compress_s: float = 0.0
    prefill_s: float = 0.0
    prefill_tokens: int = 0
    generate_s: float = 0.0
    ttft_s: float = 0.0
    tokens_per_s: float = 0.0
    unknown_words: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def declined(self) -> str:
        """Why the model was not asked about the clip; "" where it was."""
        if self.finish_reason != "foreign":
            return ""
        return (
            f"this clip is unlike all that the model was trained on (distance {self.domain_distance:.0f}, "
            f"limit {self.domain_limit:.0f}), so it was not asked"
        )
