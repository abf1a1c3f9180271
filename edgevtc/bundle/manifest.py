"""`manifest.json`: what a bundle holds, as typed records with one strict reader and one writer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from edgevtc.errors import BundleError, ConfigError, choices
from edgevtc.methods.spec import POSITION_MODES
from edgevtc.records import NOT_EMPTY, Ratio, Size, one_of, read_record

__all__ = [
    "SCHEMA_VERSION",
    "AutoEntry",
    "DecoderEntry",
    "FileEntry",
    "Manifest",
    "MethodEntry",
    "ModelEntry",
    "PromptEntry",
    "TensorEntry",
    "VerificationEntry",
    "VisionEntry",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelEntry:
    """Where the weights come from."""

    name: str
    family: str
    revision: str
    licence: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VisionEntry:
    """The vision side: T frames of H×W pixels become T·N tokens of width D.

    Attributes:
        frames_per_call: C, frames the encoder graph takes at once.
        resample: Filter of the model's own image processor, by Pillow's name in lower case.
        saliency: Source of the saliency output, `siglip_head` or `siglip_last_mean`; "" where it has none.
        frame_features: Source of the frame descriptors, `siglip_head` or `mean`; "" where there are none.
        dtype: Floating type of the graph's outputs.
        compute_dtype: Of the big products inside vision graphs: float32 or float16.
        weight_format: Of the encoder's products: float, as `compute_dtype` says, or w8a8.
        calibration: Clips that the scales of a w8a8 encoder were measured on.
    """

    encoder: str
    num_frames: Size
    tokens_per_frame: Size
    grid_height: Size
    grid_width: Size
    hidden_size: Size
    image_height: Size
    image_width: Size
    frames_per_call: Size
    resample: str
    saliency: Annotated[str, one_of("siglip_head", "siglip_last_mean", "")]
    frame_features: Annotated[str, one_of("siglip_head", "mean", "")]
    dtype: Annotated[str, one_of("float32")]
    compute_dtype: Annotated[str, one_of("float32", "float16")] = "float32"
    weight_format: Annotated[str, one_of("float", "w8a8")] = "float"
    calibration: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodEntry:
    """One method at one budget.

    Attributes:
        needs: Outputs of the encoder that the compressor graph takes, in order.
        positions: `original` or `contiguous`, obeyed by the decoder.
        fused: Graph from frames to tokens, or "" where the bundle has none.
        compressor: Graph from the encoder's outputs to tokens.
        prefill_gflops: Prefill of the kept visual tokens, by `Manifest.flops_convention`.
    """

    name: str
    budget: Size
    retention_ratio: Ratio
    needs: tuple[str, ...]
    positions: Annotated[str, one_of(*POSITION_MODES)]
    config: dict[str, Any]
    compressor: str
    fused: str = ""
    prefill_gflops: float = 0.0


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of the weight store that the host reads itself."""

    file: str
    dtype: Annotated[str, one_of("float16", "float32")]
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class DecoderEntry:
    """The language model.

    Attributes:
        graphs: Weight format → graph file; the first is the default.
        kv_update: How a graph writes the cache; `in_place` binds one buffer as past and present.
        max_positions: Rows of the rotary table: the largest original position plus one.
        embeddings: Token embeddings [vocabulary, hidden], gathered on the host.
        special_embeddings: Name → embedding that stands for no token (`image_newline`).
    """

    graphs: Annotated[dict[Annotated[str, one_of("fp32", "int8", "w8a8", "int4")], str], NOT_EMPTY]
    kv_update: Annotated[str, one_of("in_place")]
    num_layers: Size
    num_kv_heads: Size
    head_dim: Size
    hidden_size: Size
    vocab_size: Size
    max_positions: Size
    embeddings: TensorEntry
    special_embeddings: dict[str, TensorEntry] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptEntry:
    """How the video stands in the prompt.

    Attributes:
        video_token: Text of the placeholder in the rendered chat template.
        video_newline: Whether `image_newline` follows the visual tokens.
        examples: Questions the model is known to answer; shown where a question has unknown words.
    """

    video_token: str
    video_newline: bool
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerificationEntry:
    """What the bundle was held to when it was exported, and a device is held to.

    Attributes:
        references: File of real inputs with torch's outputs, see :mod:`edgevtc.measure.references`.
        frames: Where its frames come from.
        question: What the prompt asks.
        answer: Of the first method and weight format, as exported; greedy, cut after a few tokens.
        answer_margin: Smallest lead of an answer's token by torch, relative to the largest logit; where it is below
            the weight format's tolerance, another answer is as good.
        differences: Graph → largest difference from torch at export, relative to the largest value.
    """

    references: str
    frames: str
    question: str
    answer: str = ""
    answer_margin: float = 0.0
    differences: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AutoEntry:
    """How `--budget auto` chooses among a method's budgets.

    Attributes:
        budgets: Those worth trying, rising.
        margin: Answer margin below which the next one is tried.
    """

    budgets: Annotated[tuple[Size, ...], NOT_EMPTY]
    margin: float


@dataclass(frozen=True)
class FileEntry:
    """Content hash and size of one file of the bundle."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The whole manifest.

    Attributes:
        auto: Method → how `--budget auto` goes about it, where that was calibrated.
        domain: File that tells foreign footage, see :mod:`edgevtc.domain`; "" where the model answers about any.
    """

    model: ModelEntry
    vision: VisionEntry
    methods: Annotated[tuple[MethodEntry, ...], NOT_EMPTY]
    decoder: DecoderEntry
    prompt: PromptEntry
    files: dict[str, FileEntry]
    producer: dict[str, str]
    flops_convention: str
    verification: VerificationEntry | None = None
    auto: dict[str, AutoEntry] = field(default_factory=dict)
    domain: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def tokens_total(self) -> int:
        """T·N, the visual tokens before compression."""
        return self.vision.num_frames * self.vision.tokens_per_frame

    @property
    def graphs(self) -> tuple[str, ...]:
        """Every graph file, each once."""
        reduced = (graph for entry in self.methods for graph in (entry.compressor, entry.fused) if graph)
        return tuple(dict.fromkeys((self.vision.encoder, *reduced, *self.decoder.graphs.values())))

    def method(self, name: str | None = None, budget: int | None = None) -> MethodEntry:
        """The entry of a method at a budget.

        Args:
            name: Method, or None for the bundle's first.
            budget: Tokens kept, or None for the method's first entry.

        Raises:
            ConfigError: The bundle has no such method or budget; the message lists what it has.
        """
        entries = [entry for entry in self.methods if name in (None, entry.name)]
        if not entries:
            held = dict.fromkeys(entry.name for entry in self.methods)
            raise ConfigError(f"this bundle has no method {name!r}: {choices(held)}")
        if budget is None:
            return entries[0]
        for entry in entries:
            if entry.budget == budget:
                return entry
        have = choices(sorted({entry.budget for entry in entries}, reverse=True))
        raise ConfigError(f"this bundle keeps no {budget} of {self.tokens_total} tokens{by(name)}: {have}")

    def to_json(self) -> str:
        """The manifest as JSON, closed by the hash of all that stands before it."""
        body = asdict(self)
        return json.dumps({**body, "manifest_sha256": digest(body)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest.

        Raises:
            BundleError: Not JSON, another schema version, altered, or a field is missing or of the wrong type.
        """
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"manifest.json is not JSON ({error}): export the bundle again") from None
        if not isinstance(body, dict) or body.get("schema_version") != SCHEMA_VERSION:
            found = body.get("schema_version") if isinstance(body, dict) else None
            raise BundleError(
                f"manifest.json has schema version {found!r}, this edgevtc reads {SCHEMA_VERSION}: "
                "export the bundle again"
            )
        if body.pop("manifest_sha256", None) != digest(body):
            raise BundleError("manifest.json was altered after it was written (its own hash differs): export it again")
        return read_record(cls, body, "manifest.json", BundleError)


def by(name: str | None) -> str:
    """The words `by METHOD`, or nothing where no method was named."""
    return f" by {name}" if name else ""


def digest(body: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON form."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
