"""A checkpoint becomes a bundle."""

from __future__ import annotations

import gc
import hashlib
import io
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, fields
from functools import cache, partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from edgevtc import __version__
from edgevtc.bundle import (
    Bundle,
    BundleWriter,
    DecoderEntry,
    FileEntry,
    FolderWriter,
    Manifest,
    MethodEntry,
    ModelEntry,
    PromptEntry,
    TensorEntry,
    VerificationEntry,
    VisionEntry,
)
from edgevtc.compressors import Compressor, create
from edgevtc.decoder.text import TextCodec
from edgevtc.errors import ConfigError, ExportError, choices
from edgevtc.exporter.calibrate import calibration_clips, calibration_frames, largest_activations
from edgevtc.exporter.contract import require_contract
from edgevtc.exporter.decoder import WEIGHT_FORMATS, build_decoder
from edgevtc.exporter.decoder_config import DecoderConfig
from edgevtc.exporter.fingerprint import folder_sha256, package_sha256, program_sha256
from edgevtc.exporter.flops import FLOPS_CONVENTION, prefill_gflops
from edgevtc.exporter.parts import Parts, working_parts
from edgevtc.exporter.plan import ExportPlan, plan_export, require_room
from edgevtc.exporter.precision import DTYPES, to_float16
from edgevtc.exporter.quantize_encoder import ENCODER_FORMATS, quantize_encoder
from edgevtc.exporter.store import read_graph, write_graph
from edgevtc.exporter.text import chat_template, generation_config, preprocessor_config, tokenizer_json
from edgevtc.exporter.verify import DEFAULT_QUESTION, REFERENCES, TorchReference, reference_frames, verify_draft
from edgevtc.exporter.vision import export_compressor, export_encoder, fuse
from edgevtc.measure.verify import prompt_ids
from edgevtc.methods import NEEDS, POSITION_MODES, budget_for, method_key, method_spec
from edgevtc.models import ModelAdapter, Vision, open_model
from edgevtc.records import read_record

__all__ = ["ExportOptions", "export_bundle", "plan_bundle"]

#: RoPE positions kept for text beside the visual tokens, where the options set no limit.
TEXT_POSITIONS = 2048

#: Distributions whose versions a manifest records.
PRODUCERS = ("torch", "transformers", "onnx", "onnxscript", "onnx-ir")

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

#: File of a calibration: weight → largest magnitude of each input channel.
CALIBRATION = "calibration.npz"


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
        ):
            for value in values:
                if value not in valid:
                    raise ConfigError(f"{what} {value!r} is not valid: {choices(valid)}")
        if not self.methods or not self.retention_ratios or not self.weight_formats:
            raise ConfigError("an export needs at least one method, one retention ratio and one weight format")
        if unused := set(self.parameters) - set(self.methods):
            raise ConfigError(f"parameters are set for {min(unused)}, which is not exported: {choices(self.methods)}")
        if self.calibrate and self.encoder_format == "float":
            raise ConfigError("clips to calibrate on are given, and no encoder to quantize: add --encoder-format w8a8")


def export_bundle(
    checkpoint: Path,
    output: Path,
    options: ExportOptions,
    *,
    overwrite: bool = False,
    restart: bool = False,
    cache_dir: Path | None = None,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda step: None,
) -> Bundle:
    """Export a transformers checkpoint folder.

    Finished parts of an export that was interrupted are taken over by the next one to the same place, where nothing
    they depend on has changed: the checkpoint's files, the options, this package's code, the libraries' versions.

    Args:
        checkpoint: Folder with config.json, safetensors and tokenizer.
        output: Where the bundle will stand; it appears whole or not at all.
        options: What to export.
        overwrite: Replace a bundle that is already there.
        restart: Leave out what an interrupted export has finished.
        cache_dir: Where compressor graphs, which no weights are in, are kept for other exports; nowhere where None.
        jobs: Processes that trace compressors; each needs about 1 GB.
        progress: Called with the name of each step as it begins.

    Raises:
        ConfigError: An option is not valid for this checkpoint.
        ExportError: The checkpoint cannot be exported, disk or memory do not suffice, a graph breaks the contract, or
            differs from torch.
        VideoError: The clip to verify with cannot be read.
    """
    if jobs < 1:
        raise ConfigError(f"{jobs} jobs are not valid: give 1 or more")
    model, compressors, config, plan = prepare(checkpoint, options)
    num_frames = compressors[0].num_frames
    frames, frames_source = reference_frames(model, num_frames, options.clip)
    writer = BundleWriter(output, overwrite)
    parts = working_parts(output, progress)
    if restart:
        parts.clear()
    require_room(plan, output, held=parts.size())
    graphs = Parts(cache_dir, shared=True, say=progress) if cache_dir is not None else parts
    with writer:
        question = options.examples[0] if options.examples else DEFAULT_QUESTION
        made = make_parts(
            writer, parts, graphs, checkpoint, options, model, compressors, config, frames, question, jobs, progress
        )
        # Before the graphs are loaded: both at once would need twice the memory. The tracer leaves cycles that hold it.
        gc.collect()

        def manifest(verification: VerificationEntry, files: dict[str, FileEntry]) -> Manifest:
            return Manifest(
                model=ModelEntry(
                    options.name or checkpoint.resolve().name, model.model_type, options.revision, options.licence
                ),
                vision=made.vision,
                methods=made.methods,
                decoder=made.decoder,
                prompt=PromptEntry(model.prompt.video_token, model.prompt.video_newline, options.examples),
                files=files,
                producer=producer(),
                flops_convention=FLOPS_CONVENTION,
                verification=verification,
            )

        verification = VerificationEntry(REFERENCES, frames_source, question)
        draft = writer.draft(partial(manifest, verification))
        try:
            verified = verify_draft(draft, verification, made.reference, progress)
        except ExportError:
            parts.clear()  # what differs from torch is nothing to build on
            raise
        bundle = writer.finish(partial(manifest, verified))
        parts.clear()
        return bundle


@dataclass(frozen=True)
class Made:
    """What the manifest says of the parts, and what torch makes of the frames."""

    vision: VisionEntry
    methods: tuple[MethodEntry, ...]
    decoder: DecoderEntry
    reference: TorchReference


def make_parts(
    writer: BundleWriter,
    parts: Parts,
    graphs: Parts,
    checkpoint: Path,
    options: ExportOptions,
    model: ModelAdapter,
    compressors: Sequence[Compressor],
    config: DecoderConfig,
    frames: np.ndarray,
    question: str,
    jobs: int,
    progress: Callable[[str], None],
) -> Made:
    """Every file of the bundle but its manifest: made, or taken over from `parts` and, for compressors, `graphs`."""
    num_frames = len(frames)
    progress("reading the vision tower")
    needs = tuple(need for need in NEEDS if any(need in compressor.spec.needs for compressor in compressors))
    vision = model.vision(
        needs,
        saliency=options.saliency,
        frame_features=options.frame_features,
        siglip_head=options.siglip_head,
    )
    versions = producer()
    source = {"versions": versions, "code": package_sha256(), "checkpoint": folder_sha256(checkpoint)}
    seen = {**source, "needs": needs, "num_frames": num_frames}
    clips = calibration_clips(checkpoint, options.calibrate) if options.encoder_format == "w8a8" else []
    encoded = {**seen, "options": without(options, ENCODER_BLIND), "clips": clips}

    @cache
    def largest() -> dict[str, np.ndarray]:
        def measure(part: FolderWriter) -> None:
            progress("calibrating the encoder")
            stream = io.BytesIO()
            np.savez(stream, **largest_activations(vision, calibration_frames(model, clips)))  # type: ignore[arg-type]
            part.file(CALIBRATION, stream.getvalue())

        seen = {**source, "options": without(options, CALIBRATION_BLIND), "clips": clips}
        with np.load(parts.take("calibration", seen, measure).folder / CALIBRATION) as stored:
            return dict(stored)

    def trace(frames_per_call: int) -> ir.Model:
        graph = export_encoder(vision, frames_per_call)
        if options.encoder_format == "w8a8":
            graph = quantize_encoder(graph, largest())
        return to_float16(graph) if options.dtype == "float16" else graph

    encoder = parts.take(
        "encoder",
        encoded,
        lambda part: write_encoder(part, trace, model, vision, num_frames, clips, options, progress),
    ).into(writer)

    @cache
    def clip_encoder() -> ir.Model:
        progress("tracing the encoder, the whole clip a call")
        return trace(num_frames)

    shapes = vision.feature_shapes(num_frames)
    programs = [{"versions": versions, **program_of(compressor, shapes)} for compressor in compressors]
    typed = [{**program, "dtype": options.dtype} for program in programs]
    trace_ahead(graphs, compressors, typed, shapes, options.dtype, jobs, progress)
    for compressor, program in zip(compressors, typed, strict=True):
        key = method_key(compressor.spec.name, compressor.budget)
        compressed = graphs.take(
            f"compressors/{key}", program, partial(write_compressor, compressor, shapes, options.dtype, progress)
        )
        if options.fused:
            parts.take(
                f"vision/{key}",
                {**encoded, "program": program},
                partial(write_fused, compressor, clip_encoder, compressed.folder, progress),
            ).into(writer)
        compressed.into(writer)  # last, for no tensor is read of a file of two names
    decoder = write_decoder(writer, parts, source, model, config, options, progress)
    progress("writing texts")
    tokenizer = writer.file("tokenizer.json", tokenizer_json(checkpoint))
    writer.file("chat_template.jinja", chat_template(checkpoint))
    writer.file("generation_config.json", generation_config(checkpoint, model.text_config))
    writer.file("preprocessor_config.json", preprocessor_config(model.preprocessing))
    ids = prompt_ids(writer.folder, TextCodec(writer.folder / tokenizer), question)

    def write_reference(part: FolderWriter) -> None:
        progress("computing the reference in torch")
        TorchReference.compute(model, vision, compressors, frames, ids).write(part)

    asked = {"programs": programs, "prompt_ids": ids, "frames": hashlib.sha256(frames.tobytes()).hexdigest()}
    held = parts.take("references", {**seen, **asked, "options": without(options, REFERENCE_BLIND)}, write_reference)
    held.give(writer, REFERENCES)
    methods = tuple(method_entry(compressor, config, options) for compressor in compressors)
    return Made(encoder.entry(VisionEntry), methods, decoder, TorchReference.read(model, held.folder))


def without(options: ExportOptions, blind: set[str]) -> dict[str, Any]:
    """The options a part depends on; a path stands for what is there."""
    return {entry.name: getattr(options, entry.name) for entry in fields(options) if entry.name not in blind}


def program_of(compressor: Compressor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """All that decides a compressor's graph, the libraries' versions aside: no weights are in it."""
    return {
        "method": compressor.spec.name,
        "code": program_sha256(type(compressor)),
        "config": dict(compressor.config),
        "budget": compressor.budget,
        "retention_ratio": compressor.retention_ratio,
        "grid_width": compressor.grid_width,
        "tokens_per_frame": compressor.tokens_per_frame,
        "num_frames": compressor.num_frames,
        "inputs": {name: shapes[name] for name in compressor.spec.needs if name in shapes},
    }


def plan_bundle(checkpoint: Path, options: ExportOptions) -> ExportPlan:
    """What an export will take on disk and in memory; reads configuration and headers only, and writes nothing.

    Raises:
        ConfigError: An option is not valid for this checkpoint.
        ExportError: The checkpoint cannot be exported.
    """
    return prepare(checkpoint, options)[-1]


def prepare(
    checkpoint: Path, options: ExportOptions
) -> tuple[ModelAdapter, list[Compressor], DecoderConfig, ExportPlan]:
    """All that is decided before a weight is read; it finds what is wrong."""
    if options.encoder_format == "w8a8":
        calibration_clips(checkpoint, options.calibrate)
    model = open_model(checkpoint)
    num_frames = options.num_frames or model.geometry.num_frames
    compressors = plan_compressors(model, num_frames, options)
    config = DecoderConfig.from_text_config(
        model.text_config, max_positions=options.max_positions or default_positions(model, num_frames)
    )
    plan = plan_export(
        model,
        config,
        compressors,
        options.weight_formats,
        frames_per_call=divisor_up_to(num_frames, options.frames_per_call),
        fused=options.fused,
        vision_format=options.dtype if options.encoder_format == "float" else options.encoder_format,
    )
    return model, compressors, config, plan


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


def default_positions(model: ModelAdapter, num_frames: int) -> int:
    """Rotary rows for the visual tokens and a text, within what the model was trained for."""
    wanted = num_frames * model.geometry.tokens_per_frame + TEXT_POSITIONS
    return min(wanted, model.text_config["max_position_embeddings"])


def write_encoder(
    part: FolderWriter,
    trace: Callable[[int], ir.Model],
    model: ModelAdapter,
    vision: Vision,
    num_frames: int,
    clips: Sequence[Path],
    options: ExportOptions,
    progress: Callable[[str], None],
) -> VisionEntry:
    """Trace, check and write the encoder."""
    frames_per_call = divisor_up_to(num_frames, options.frames_per_call)
    progress(f"tracing the encoder, {frames_per_call} frames a call")
    graph = trace(frames_per_call)
    require_contract(graph, "encoder")
    geometry = model.geometry
    return VisionEntry(
        encoder=write_graph(part, "encoder.onnx", graph),
        num_frames=num_frames,
        tokens_per_frame=geometry.tokens_per_frame,
        grid_height=geometry.grid_height,
        grid_width=geometry.grid_width,
        hidden_size=geometry.hidden_size,
        image_height=geometry.image_height,
        image_width=geometry.image_width,
        frames_per_call=frames_per_call,
        resample=model.preprocessing.resample,
        saliency=options.saliency if "saliency" in vision.outputs else "",
        frame_features=options.frame_features if "frame_features" in vision.outputs else "",
        dtype="float32",
        compute_dtype=options.dtype,
        weight_format=options.encoder_format,
        calibration=tuple(clip.name for clip in clips),
    )


def graph_name(kind: str, compressor: Compressor) -> str:
    """A method's graph in a bundle."""
    return f"{kind}/{method_key(compressor.spec.name, compressor.budget)}.onnx"


def write_compressor(
    compressor: Compressor,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    progress: Callable[[str], None],
    part: FolderWriter,
) -> None:
    """Trace, check and write one method at one budget."""
    progress(f"tracing {compressor.spec.name}, {compressor.budget} tokens")
    graph = export_compressor(compressor, shapes)
    graph = to_float16(graph) if dtype == "float16" else graph
    require_contract(graph, "compressor")
    write_graph(part, graph_name("compressors", compressor), graph)


def trace_ahead(
    graphs: Parts,
    compressors: Sequence[Compressor],
    programs: Sequence[dict[str, Any]],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    jobs: int,
    progress: Callable[[str], None],
) -> None:
    """Write what is missing of the compressors' graphs in several processes; each loads torch, which takes seconds."""
    names = [f"compressors/{method_key(compressor.spec.name, compressor.budget)}" for compressor in compressors]
    tasks = zip(names, programs, compressors, strict=True)
    missing = [task for task in tasks if not graphs.holds(*task[:2])]
    if jobs == 1 or len(missing) < 2:
        return
    progress(f"tracing {len(missing)} compressors in {jobs} processes")
    place = Parts(graphs.folder, shared=graphs.shared, say=silent)
    # Not forked: torch's threads do not survive that.
    with ProcessPoolExecutor(min(jobs, len(missing)), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        made = [
            pool.submit(place.take, name, program, partial(write_compressor, compressor, shapes, dtype, silent))
            for name, program, compressor in missing
        ]
        for count, part in enumerate(as_completed(made), 1):
            part.result()
            progress(f"traced {count} of {len(missing)} compressors")


def silent(step: str) -> None:
    """Progress of a process beside the one that speaks."""


def write_fused(
    compressor: Compressor,
    clip_encoder: Callable[[], ir.Model],
    compressed: Path,
    progress: Callable[[str], None],
    part: FolderWriter,
) -> None:
    """Put a method's finished graph behind the encoder of a whole clip, check and write it."""
    encoder = clip_encoder()
    progress(f"fusing {compressor.spec.name}, {compressor.budget} tokens")
    graph = fuse(encoder, read_graph(compressed, graph_name("compressors", compressor)))
    require_contract(graph, "vision")
    write_graph(part, graph_name("vision", compressor), graph)


def method_entry(compressor: Compressor, config: DecoderConfig, options: ExportOptions) -> MethodEntry:
    """What the manifest says of one method at one budget."""
    spec = compressor.spec
    return MethodEntry(
        name=spec.name,
        budget=compressor.budget,
        retention_ratio=compressor.retention_ratio,
        needs=spec.needs,
        positions=options.positions or spec.positions,
        config=compressor.config,
        compressor=graph_name("compressors", compressor),
        fused=graph_name("vision", compressor) if options.fused else "",
        prefill_gflops=prefill_gflops(config, compressor.budget),
    )


def write_decoder(
    writer: BundleWriter,
    parts: Parts,
    source: Mapping[str, Any],
    model: ModelAdapter,
    config: DecoderConfig,
    options: ExportOptions,
    progress: Callable[[str], None],
) -> DecoderEntry:
    """Declare, quantize and write the decoder in each weight format, and the embeddings the host gathers."""
    weights = model.decoder_weights()
    depends = {**source, "config": asdict(config), "options": without(options, DECODER_BLIND)}

    def write_graph_in(weight_format: str, part: FolderWriter) -> None:
        progress(f"writing the decoder in {weight_format}")
        write_graph(part, f"decoder/{weight_format}.onnx", build_decoder(config, weights, weight_format))

    def write_embeddings(part: FolderWriter) -> dict[str, Any]:
        progress("writing the embeddings")
        special = model.special_embeddings().items()
        return {
            "embeddings": asdict(part.tensor(weights["embed_tokens.weight"].astype(np.float16))),
            "special_embeddings": {name: asdict(part.tensor(value.astype(np.float32))) for name, value in special},
        }

    for weight_format in options.weight_formats:
        own = {**depends, "weight_format": weight_format}
        parts.take(f"decoder/{weight_format}", own, partial(write_graph_in, weight_format)).into(writer)
    stored = parts.take("embeddings", depends, write_embeddings).into(writer).record

    def tensor(record: dict[str, Any]) -> TensorEntry:
        return read_record(TensorEntry, record, "embeddings", ExportError)

    return DecoderEntry(
        graphs={weight_format: f"decoder/{weight_format}.onnx" for weight_format in options.weight_formats},
        kv_update="in_place",
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        max_positions=config.max_positions,
        embeddings=tensor(stored["embeddings"]),
        special_embeddings={name: tensor(record) for name, record in stored["special_embeddings"].items()},
    )


def producer() -> dict[str, str]:
    """Versions of what made the bundle."""
    return {
        "edgevtc": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PRODUCERS},
    }
