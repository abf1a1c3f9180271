"""What to export, and which of it each part of an export depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgevtc.errors import ConfigError, choices
from edgevtc.exporter.decoder import WEIGHT_FORMATS
from edgevtc.exporter.precision import DTYPES
from edgevtc.exporter.quantize_encoder import ENCODER_FORMATS
from edgevtc.methods import POSITION_MODES
from edgevtc.models.base import FRAME_FEATURE_SOURCES, SALIENCY_SOURCES

__all__ = [
    "CALIBRATION_BLIND",
    "DECODER_BLIND",
    "ENCODER_BLIND",
    "REFERENCE_BLIND",
    "ExportOptions",
    "without",
]

#: Options that a part does not depend on; it is made again where any other has changed.
_LABELS = {"name", "revision", "licence", "positions"}
ENCODER_BLIND = _LABELS | {"methods", "retention_ratios", "parameters", "weight_formats", "max_positions", "fused"}
ENCODER_BLIND |= {"examples", "clip", "calibrate"}
DECODER_BLIND = _LABELS | {"methods", "retention_ratios", "parameters", "weight_formats", "fused", "examples", "clip"}
DECODER_BLIND |= {"num_frames", "frames_per_call", "saliency", "frame_features", "siglip_head"}
DECODER_BLIND |= {"dtype", "encoder_format", "calibrate"}
REFERENCE_BLIND = _LABELS | {"weight_formats", "max_positions", "fused", "examples", "clip", "frames_per_call"}
REFERENCE_BLIND |= {"dtype", "encoder_format", "calibrate"}
CALIBRATION_BLIND = ENCODER_BLIND | {"num_frames", "frames_per_call", "dtype", "encoder_format"}


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        methods: Compression methods; the first is the bundle's default.
        retention_ratios: Each in (0, 1]; every method gets every one, `none` its own 1.
        num_frames: T; the family's own where None.
        frames_per_call: Most frames of one encoder call; the largest divisor of T up to it is taken.
        positions: Position mode for all methods; each method's own where None.
        parameters: Method → hyper-parameter → value, where not the paper's.
        weight_formats: Weight formats of the decoder; the first is the bundle's default.
        saliency: Source of saliency, see :meth:`ModelAdapter.vision`.
        frame_features: Source of frame descriptors, see :meth:`ModelAdapter.vision`.
        siglip_head: SigLIP checkpoint to take the pooling head from.
        max_positions: Rows of the decoder's rotary table; the visual tokens and 2,048 more where None.
        fused: Whether to write the graphs from frames to tokens beside the encoder and the compressors.
        dtype: float32 or float16, of the vision graphs' big products; all else stays float32.
        encoder_format: Of the encoder's products: float, as `dtype` says, or w8a8.
        calibrate: Clips, and folders of clips, that the scales of a w8a8 encoder are measured on; scenes of the
            synthetic world where empty, which only the model in the package may be.
        name: Name of the model in the manifest; the folder's where empty.
        revision: Of the checkpoint.
        licence: Of the weights.
        examples: Questions the model is known to answer; the first is asked to verify the bundle.
        clip: Video whose frames the graphs are held to torch on; a scene of the synthetic world where None.
    """

    methods: tuple[str, ...] = ("uniform",)
    retention_ratios: tuple[float, ...] = (0.15,)
    num_frames: int | None = None
    frames_per_call: int = 1
    positions: str | None = None
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weight_formats: tuple[str, ...] = ("w8a8",)
    saliency: str = "siglip_head"
    frame_features: str = "siglip_head"
    siglip_head: Path | None = None
    max_positions: int | None = None
    fused: bool = True
    dtype: str = "float32"
    encoder_format: str = "float"
    calibrate: tuple[Path, ...] = ()
    name: str = ""
    revision: str = ""
    licence: str = ""
    examples: tuple[str, ...] = ()
    clip: Path | None = None

    def __post_init__(self) -> None:
        for values, valid, what in (
            (self.weight_formats, WEIGHT_FORMATS, "weight format"),
            ((self.positions,) if self.positions else (), POSITION_MODES, "position mode"),
            ((self.dtype,), DTYPES, "dtype"),
            ((self.encoder_format,), ENCODER_FORMATS, "encoder format"),
            ((self.saliency,), SALIENCY_SOURCES, "source of saliency"),
            ((self.frame_features,), FRAME_FEATURE_SOURCES, "source of frame features"),
        ):
            for value in values:
                if value not in valid:
                    raise ConfigError(f"{what} {value!r} is not valid: {choices(valid)}")
        for count, what in (
            (self.num_frames, "frames of a clip"),
            (self.frames_per_call, "frames of an encoder call"),
            (self.max_positions, "positions"),
        ):
            if count is not None and count < 1:
                raise ConfigError(f"{count} {what} is not valid: give 1 or more")
        if not self.methods or not self.retention_ratios or not self.weight_formats:
            raise ConfigError("an export needs at least one method, one retention ratio and one weight format")
        if unused := set(self.parameters) - set(self.methods):
            raise ConfigError(f"parameters are set for {min(unused)}, which is not exported: {choices(self.methods)}")
        if self.calibrate and self.encoder_format == "float":
            raise ConfigError("clips to calibrate on are given, and no encoder to quantize: add --encoder-format w8a8")


def without(options: ExportOptions, blind: set[str]) -> dict[str, Any]:
    """The options a part depends on; a path stands for what is there."""
    return {entry.name: getattr(options, entry.name) for entry in fields(options) if entry.name not in blind}
