"""All that is decided of an export before a weight is read; what is wrong with it is found here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevtc.compressors import Compressor, create
from edgevtc.errors import ConfigError
from edgevtc.exporter.calibrate import calibration_clips
from edgevtc.exporter.decoder_config import DecoderConfig
from edgevtc.exporter.options import ExportOptions
from edgevtc.exporter.plan import ExportPlan, plan_export
from edgevtc.exporter.text import text_files
from edgevtc.methods import budget_for, method_spec
from edgevtc.models import ModelAdapter, open_model
from edgevtc.video import probe

__all__ = ["Prepared", "plan_bundle", "prepare"]

#: RoPE positions kept for text beside the visual tokens, where the options set no limit.
TEXT_POSITIONS = 2048


@dataclass(frozen=True)
class Prepared:
    """An export that may begin.

    Attributes:
        checkpoint: Its folder.
        options: What to export.
        model: The checkpoint, opened.
        compressors: Every method at every budget; the first is the bundle's default.
        config: Of the decoder.
        num_frames: T.
        frames_per_call: C, frames of one encoder call.
        clips: That a w8a8 encoder is calibrated on.
        texts: The bundle's text files.
        plan: What it will take.
    """

    checkpoint: Path
    options: ExportOptions
    model: ModelAdapter
    compressors: tuple[Compressor, ...]
    config: DecoderConfig
    num_frames: int
    frames_per_call: int
    clips: tuple[Path, ...]
    texts: Mapping[str, bytes]
    plan: ExportPlan


def plan_bundle(checkpoint: Path, options: ExportOptions) -> ExportPlan:
    """What an export will take on disk and in memory; reads no weights and writes nothing.

    Raises:
        ConfigError: An option is not valid for this checkpoint.
        ExportError: The checkpoint cannot be exported.
    """
    return prepare(checkpoint, options).plan


def prepare(checkpoint: Path, options: ExportOptions) -> Prepared:
    """Decide all that is to be decided; raises as :func:`plan_bundle` does."""
    clips = calibration_clips(checkpoint, options.calibrate) if options.encoder_format == "w8a8" else []
    model = open_model(checkpoint)
    num_frames = model.geometry.num_frames if options.num_frames is None else options.num_frames
    compressors = plan_compressors(model, num_frames, options)
    require_sources(options)
    texts = text_files(checkpoint, model.text_config, model.preprocessing)
    config = DecoderConfig.from_text_config(
        model.text_config, max_positions=decoder_positions(model, options, compressors)
    )
    frames_per_call = divisor_up_to(num_frames, options.frames_per_call)
    plan = plan_export(
        model,
        config,
        compressors,
        options.weight_formats,
        frames_per_call=frames_per_call,
        fused=options.fused,
        vision_format=options.dtype if options.encoder_format == "float" else options.encoder_format,
    )
    return Prepared(
        checkpoint, options, model, tuple(compressors), config, num_frames, frames_per_call, tuple(clips), texts, plan
    )


def require_sources(options: ExportOptions) -> None:
    """Raise where a file that is read later is not there, or is no video."""
    if options.siglip_head is not None and not options.siglip_head.exists():
        raise ConfigError(f"there is no {options.siglip_head} to take a pooling head from: give a folder or a file")
    if options.clip is not None:
        probe(options.clip)


def decoder_positions(model: ModelAdapter, options: ExportOptions, compressors: Sequence[Compressor]) -> int:
    """Rotary rows: the options' number, or a clip's and a text's within what the model was trained for.

    Raises:
        ConfigError: They do not reach beyond a clip's own.
    """
    most = model.text_config["max_position_embeddings"]
    clip = max(compressor.num_frames * compressor.tokens_per_frame for compressor in compressors)
    count = options.max_positions or min(clip + TEXT_POSITIONS, most)
    taken, name = max((positions_taken(compressor, options), compressor.spec.name) for compressor in compressors)
    if count <= taken:
        enough = min(taken + TEXT_POSITIONS, most)
        remedy = f"give {enough}, or leave the number out" if enough > taken else "give fewer frames"
        raise ConfigError(f"{count} positions leave none for a question: {name} takes {taken} of them; {remedy}")
    return count


def positions_taken(compressor: Compressor, options: ExportOptions) -> int:
    """Positions that the visual tokens of a compressor span."""
    original = (options.positions or compressor.spec.positions) == "original"
    return compressor.num_frames * compressor.tokens_per_frame if original else compressor.budget


def divisor_up_to(num_frames: int, most: int) -> int:
    """C: the largest divisor of T up to ``most``."""
    return max(c for c in range(1, most + 1) if num_frames % c == 0)


def plan_compressors(model: ModelAdapter, num_frames: int, options: ExportOptions) -> list[Compressor]:
    """Every method at every budget, in the order of the options; equal budgets once."""
    geometry = model.geometry
    found: dict[tuple[str, int], Compressor] = {}
    for name in options.methods:
        method_spec(name)
        for ratio in (1.0,) if name == "none" else options.retention_ratios:
            budget = budget_for(ratio, num_frames, geometry.tokens_per_frame)
            if (name, budget) not in found:
                found[name, budget] = create(
                    name,
                    num_frames,
                    geometry.tokens_per_frame,
                    budget,
                    retention_ratio=ratio,
                    grid_width=geometry.grid_width,
                    **options.parameters.get(name, {}),
                )
    return list(found.values())
