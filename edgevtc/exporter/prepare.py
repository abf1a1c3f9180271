"""All that is decided of an export before a weight is read; what is wrong with it is found here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevtc.bundle import BundleWriter
from edgevtc.bundle.writer import require_writable
from edgevtc.compressors import Compressor, create
from edgevtc.errors import ConfigError
from edgevtc.exporter.calibrate import calibration_clips, chosen_clips
from edgevtc.exporter.decoder_config import DecoderConfig
from edgevtc.exporter.options import ExportOptions
from edgevtc.exporter.plan import ExportPlan, plan_export
from edgevtc.exporter.text import text_files
from edgevtc.methods import budget_for, method_spec
from edgevtc.models import ModelAdapter, open_model
from edgevtc.video import probe

__all__ = ["Prepared", "plan_bundle", "prepare", "require_places"]

#: RoPE positions kept for text beside the visual tokens, where the options set no limit.
TEXT_POSITIONS = 2048

#: Visual tokens before compression: graphs number them in int32.
MOST_TOKENS = 2**31 - 1


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
    # Before compressors are made: their making takes the longer the more frames there are.
    max_positions = decoder_positions(model, num_frames, options)
    compressors = plan_compressors(model, num_frames, options)
    require_sources(model, compressors, options, clips)
    texts = text_files(checkpoint, model.text_config, model.preprocessing)
    config = DecoderConfig.from_text_config(model.text_config, max_positions=max_positions)
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


def require_places(output: Path, *, overwrite: bool = False, cache_dir: Path | None = None, jobs: int = 1) -> None:
    """Raise where what is made cannot go, or nobody would make it; writes nothing.

    Args:
        output: Where the bundle will stand.
        overwrite: Whether a bundle that is there already may be replaced.
        cache_dir: Where compressor graphs are kept; nowhere where None.
        jobs: Processes that trace compressors.

    Raises:
        ConfigError: There is to be no process.
        ExportError: Something is in the way, or a folder cannot be made or written to.
    """
    if jobs < 1:
        raise ConfigError(f"{jobs} jobs are not valid: give 1 or more")
    BundleWriter(output, overwrite)
    if cache_dir is not None:
        require_writable(cache_dir)


def require_sources(
    model: ModelAdapter, compressors: Sequence[Compressor], options: ExportOptions, clips: Sequence[Path]
) -> None:
    """Raise where a file that is read later is not there, or is not what it has to be; reads headers alone.

    Raises:
        ConfigError: There is no such file.
        ExportError: There is no pooling head to take from it what a method needs.
        VideoError: It is no video.
    """
    head = options.siglip_head
    if head is not None and not head.exists():
        raise ConfigError(f"there is no {head} to take a pooling head from: give a folder or a file")
    needs = {need for compressor in compressors for need in compressor.spec.needs}
    model.require_sources(
        sorted(needs), saliency=options.saliency, frame_features=options.frame_features, siglip_head=head
    )
    for clip in (*([options.clip] if options.clip is not None else []), *chosen_clips(clips)):
        probe(clip)


def decoder_positions(model: ModelAdapter, num_frames: int, options: ExportOptions) -> int:
    """Rotary rows: the options' number, or a clip's and a text's within what the model was trained for.

    Raises:
        ConfigError: They do not reach beyond a clip's own, or the clip has more tokens than can be numbered.
    """
    most, clip = model.text_config["max_position_embeddings"], num_frames * model.geometry.tokens_per_frame
    if clip > MOST_TOKENS:
        raise ConfigError(
            f"{num_frames} frames have {clip} visual tokens, at most {MOST_TOKENS} can be numbered: give fewer frames"
        )
    count = options.max_positions or min(clip + TEXT_POSITIONS, most)
    taken, name = max(
        (clip if (options.positions or method_spec(name).positions) == "original" else budget, name)
        for name, _, budget in budgets(model, num_frames, options)
    )
    if count <= taken:
        enough = min(taken + TEXT_POSITIONS, most)
        remedy = f"give {enough}, or leave the number out" if enough > taken else "give fewer frames"
        raise ConfigError(f"{count} positions leave none for a question: {name} takes {taken} of them; {remedy}")
    return count


def divisor_up_to(num_frames: int, most: int) -> int:
    """C: the largest divisor of T up to ``most``."""
    return max(c for c in range(1, most + 1) if num_frames % c == 0)


def budgets(model: ModelAdapter, num_frames: int, options: ExportOptions) -> Iterator[tuple[str, float, int]]:
    """Method, retention ratio and budget of all that is exported, in the order of the options."""
    for name in options.methods:
        method_spec(name)
        for ratio in (1.0,) if name == "none" else options.retention_ratios:
            yield name, ratio, budget_for(ratio, num_frames, model.geometry.tokens_per_frame)


def plan_compressors(model: ModelAdapter, num_frames: int, options: ExportOptions) -> list[Compressor]:
    """Every method at every budget, in the order of the options; equal budgets once."""
    geometry = model.geometry
    found: dict[tuple[str, int], Compressor] = {}
    for name, ratio, budget in budgets(model, num_frames, options):
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
