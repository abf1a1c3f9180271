"""A checkpoint becomes a bundle."""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevtc import __version__
from edgevtc.bundle import (
    Bundle,
    BundleWriter,
    DecoderEntry,
    FileEntry,
    Manifest,
    MethodEntry,
    ModelEntry,
    PromptEntry,
    VerificationEntry,
    VisionEntry,
)
from edgevtc.compressors import Compressor, create
from edgevtc.decoder.text import TextCodec
from edgevtc.errors import ConfigError, choices
from edgevtc.exporter.contract import require_contract
from edgevtc.exporter.decoder import WEIGHT_FORMATS, build_decoder
from edgevtc.exporter.decoder_config import DecoderConfig
from edgevtc.exporter.flops import FLOPS_CONVENTION, prefill_gflops
from edgevtc.exporter.plan import ExportPlan, plan_export, require_room
from edgevtc.exporter.store import write_graph
from edgevtc.exporter.text import chat_template, generation_config, preprocessor_config, tokenizer_json
from edgevtc.exporter.verify import DEFAULT_QUESTION, TorchReference, reference_frames, verify_draft
from edgevtc.exporter.vision import export_compressor, export_encoder, fuse
from edgevtc.measure.verify import prompt_ids
from edgevtc.methods import NEEDS, POSITION_MODES, budget_for, method_spec
from edgevtc.models import ModelAdapter, Vision, open_model

__all__ = ["ExportOptions", "export_bundle", "plan_bundle"]

#: RoPE positions kept for text beside the visual tokens, where the options set no limit.
TEXT_POSITIONS = 2048

#: Distributions whose versions a manifest records.
PRODUCERS = ("torch", "transformers", "onnx", "onnxscript", "onnx-ir")


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
    name: str = ""
    revision: str = ""
    licence: str = ""
    examples: tuple[str, ...] = ()
    clip: Path | None = None

    def __post_init__(self) -> None:
        for values, valid, what in (
            (self.weight_formats, WEIGHT_FORMATS, "weight format"),
            ((self.positions,) if self.positions else (), POSITION_MODES, "position mode"),
        ):
            for value in values:
                if value not in valid:
                    raise ConfigError(f"{what} {value!r} is not valid: {choices(valid)}")
        if not self.methods or not self.retention_ratios or not self.weight_formats:
            raise ConfigError("an export needs at least one method, one retention ratio and one weight format")
        if unused := set(self.parameters) - set(self.methods):
            raise ConfigError(f"parameters are set for {min(unused)}, which is not exported: {choices(self.methods)}")


def export_bundle(
    checkpoint: Path,
    output: Path,
    options: ExportOptions,
    *,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Bundle:
    """Export a transformers checkpoint folder.

    Args:
        checkpoint: Folder with config.json, safetensors and tokenizer.
        output: Where the bundle will stand; it appears whole or not at all.
        options: What to export.
        overwrite: Replace a bundle that is already there.
        progress: Called with the name of each step as it begins.

    Raises:
        ConfigError: An option is not valid for this checkpoint.
        ExportError: The checkpoint cannot be exported, disk or memory do not suffice, a graph breaks the contract, or
            differs from torch.
        VideoError: The clip to verify with cannot be read.
    """
    model, compressors, config, plan = prepare(checkpoint, options)
    require_room(plan, output)
    num_frames = compressors[0].num_frames
    frames, frames_source = reference_frames(model, num_frames, options.clip)
    with BundleWriter(output, overwrite) as writer:
        progress("reading the vision tower")
        needs = tuple(need for need in NEEDS if any(need in compressor.spec.needs for compressor in compressors))
        vision = model.vision(
            needs,
            saliency=options.saliency,
            frame_features=options.frame_features,
            siglip_head=options.siglip_head,
        )
        entry = write_encoder(writer, model, vision, num_frames, options, progress)
        clip_encoder = None
        if options.fused:
            progress("tracing the encoder, the whole clip a call")
            clip_encoder = export_encoder(vision, num_frames)
        methods = [
            write_method(writer, vision, clip_encoder, compressor, config, options, progress)
            for compressor in compressors
        ]
        decoder = write_decoder(writer, model, config, options, progress)
        progress("writing texts")
        tokenizer = writer.file("tokenizer.json", tokenizer_json(checkpoint))
        writer.file("chat_template.jinja", chat_template(checkpoint))
        writer.file("generation_config.json", generation_config(checkpoint, model.text_config))
        writer.file("preprocessor_config.json", preprocessor_config(model.preprocessing))

        progress("computing the reference in torch")
        question = options.examples[0] if options.examples else DEFAULT_QUESTION
        ids = prompt_ids(writer.folder, TextCodec(writer.folder / tokenizer), question)
        reference = TorchReference(model, vision, compressors, frames, ids)
        # Before the graphs are loaded: both at once would need twice the memory. The tracer leaves cycles that hold it.
        del vision, clip_encoder
        gc.collect()
        references = writer.file("references.npz", reference.content.to_bytes())

        def manifest(verification: VerificationEntry, files: dict[str, FileEntry]) -> Manifest:
            return Manifest(
                model=ModelEntry(
                    options.name or checkpoint.resolve().name, model.model_type, options.revision, options.licence
                ),
                vision=entry,
                methods=tuple(methods),
                decoder=decoder,
                prompt=PromptEntry(model.prompt.video_token, model.prompt.video_newline, options.examples),
                files=files,
                producer=producer(),
                flops_convention=FLOPS_CONVENTION,
                verification=verification,
            )

        verification = VerificationEntry(references, frames_source, question)
        draft = writer.draft(partial(manifest, verification))
        return writer.finish(partial(manifest, verify_draft(draft, verification, reference, progress)))


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
    writer: BundleWriter,
    model: ModelAdapter,
    vision: Vision,
    num_frames: int,
    options: ExportOptions,
    progress: Callable[[str], None],
) -> VisionEntry:
    """Trace, check and write the encoder."""
    frames_per_call = divisor_up_to(num_frames, options.frames_per_call)
    progress(f"tracing the encoder, {frames_per_call} frames a call")
    graph = export_encoder(vision, frames_per_call)
    require_contract(graph, "encoder")
    geometry = model.geometry
    return VisionEntry(
        encoder=write_graph(writer, "encoder.onnx", graph),
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
    )


def write_method(
    writer: BundleWriter,
    vision: Vision,
    clip_encoder: ir.Model | None,
    compressor: Compressor,
    config: DecoderConfig,
    options: ExportOptions,
    progress: Callable[[str], None],
) -> MethodEntry:
    """Trace, check and write one method at one budget: standalone, and fused with the encoder."""
    spec, budget = compressor.spec, compressor.budget
    name = f"{spec.name}-b{budget}.onnx"
    progress(f"tracing {spec.name}, {budget} tokens")
    standalone = export_compressor(compressor, vision.feature_shapes(compressor.num_frames))
    require_contract(standalone, "compressor")
    fused = ""
    if clip_encoder is not None:
        whole = fuse(clip_encoder, standalone)
        require_contract(whole, "vision")
        fused = write_graph(writer, f"vision/{name}", whole)
    return MethodEntry(
        name=spec.name,
        budget=budget,
        retention_ratio=compressor.retention_ratio,
        needs=spec.needs,
        positions=options.positions or spec.positions,
        config=compressor.config,
        compressor=write_graph(writer, f"compressors/{name}", standalone),
        fused=fused,
        prefill_gflops=prefill_gflops(config, budget),
    )


def write_decoder(
    writer: BundleWriter,
    model: ModelAdapter,
    config: DecoderConfig,
    options: ExportOptions,
    progress: Callable[[str], None],
) -> DecoderEntry:
    """Declare, quantize and write the decoder in each weight format, and the embeddings the host gathers."""
    weights = model.decoder_weights()
    graphs = {}
    for weight_format in options.weight_formats:
        progress(f"writing the decoder in {weight_format}")
        graph = build_decoder(config, weights, weight_format)
        graphs[weight_format] = write_graph(writer, f"decoder/{weight_format}.onnx", graph)
    return DecoderEntry(
        graphs=graphs,
        kv_update="in_place",
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        max_positions=config.max_positions,
        embeddings=writer.tensor(weights["embed_tokens.weight"].astype(np.float16)),
        special_embeddings={
            name: writer.tensor(value.astype(np.float32)) for name, value in model.special_embeddings().items()
        },
    )


def producer() -> dict[str, str]:
    """Versions of what made the bundle."""
    return {
        "edgevtc": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PRODUCERS},
    }
