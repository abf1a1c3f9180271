"""The vision side of a bundle: encoder, compressors, and both fused; made, or taken over as finished before."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevtc.bundle import FolderWriter, VisionEntry
from edgevtc.compressors import Compressor
from edgevtc.errors import ExportError
from edgevtc.exporter.calibrate import calibration_frames, largest_activations
from edgevtc.exporter.contract import require_contract
from edgevtc.exporter.fingerprint import program_sha256
from edgevtc.exporter.making import Making
from edgevtc.exporter.options import CALIBRATION_BLIND, ENCODER_BLIND, without
from edgevtc.exporter.parts import Parts
from edgevtc.exporter.precision import to_float16
from edgevtc.exporter.prepare import Prepared
from edgevtc.exporter.progress import Progress
from edgevtc.exporter.quantize_encoder import quantize_encoder
from edgevtc.exporter.store import read_graph, write_graph
from edgevtc.exporter.vision import export_compressor, export_encoder, fuse
from edgevtc.exporter.workers import interrupts_held, pack_task, run_task, start_worker
from edgevtc.methods import NEEDS
from edgevtc.models import Vision
from edgevtc.workers import pool_of

__all__ = ["graph_name", "make_vision", "needs_of", "open_vision"]

#: File of a calibration: weight → largest magnitude of each input channel.
CALIBRATION = "calibration.npz"


def make_vision(making: Making) -> tuple[VisionEntry, list[dict[str, Any]]]:
    """Every graph of the vision side, into the bundle.

    Returns:
        What the manifest says of the encoder; and of each compressor all that decides its graph.
    """
    prepared, parts, progress = making.prepared, making.parts, making.progress
    options, compressors, num_frames = prepared.options, prepared.compressors, prepared.num_frames
    progress("reading the vision tower")
    vision = open_vision(prepared)
    seen = {**making.source, "needs": needs_of(compressors), "num_frames": num_frames}
    encoded = {**seen, "options": without(options, ENCODER_BLIND), "clips": prepared.clips}
    tracer = EncoderTracer(making, vision)
    encoder = parts.take("encoder", encoded, partial(write_encoder, prepared, vision, tracer, progress))
    encoder.into(making.writer)

    @cache
    def clip_encoder() -> ir.Model:
        progress("tracing the encoder, the whole clip a call")
        return tracer(num_frames)

    shapes = vision.feature_shapes(num_frames)
    versions = making.source["versions"]
    programs = [{"versions": versions, **program_of(compressor, shapes)} for compressor in compressors]
    typed = [{**program, "dtype": options.dtype} for program in programs]
    traced = trace_ahead(making.graphs, compressors, typed, shapes, options.dtype, making.jobs, progress)
    for compressor, program in zip(compressors, typed, strict=True):
        name = f"compressors/{compressor.key}"
        write = partial(write_compressor, compressor, shapes, options.dtype, progress)
        compressed = making.graphs.take(name, program, write, anew=name in traced)
        if options.fused:
            parts.take(
                f"vision/{compressor.key}",
                {**encoded, "program": program},
                partial(write_fused, compressor, clip_encoder, compressed.folder, progress),
            ).into(making.writer)
        compressed.into(making.writer)  # last, for no tensor is read of a file of two names
    return encoder.entry(VisionEntry), programs


def needs_of(compressors: Sequence[Compressor]) -> tuple[str, ...]:
    """The encoder's outputs: what any of the compressors needs."""
    return tuple(need for need in NEEDS if any(need in compressor.spec.needs for compressor in compressors))


def open_vision(prepared: Prepared) -> Vision:
    """The checkpoint's vision part as it is exported, in float32."""
    options = prepared.options
    return prepared.model.vision(
        needs_of(prepared.compressors),
        saliency=options.saliency,
        frame_features=options.frame_features,
        siglip_head=options.siglip_head,
    )


def graph_name(kind: str, compressor: Compressor) -> str:
    """A method's graph in a bundle."""
    return f"{kind}/{compressor.key}.onnx"


class EncoderTracer:
    """Traces the encoder in the arithmetic that the options ask for.

    Args:
        making: The export.
        vision: What is traced.
    """

    def __init__(self, making: Making, vision: Vision) -> None:
        self._making, self._vision = making, vision
        self._largest: dict[str, np.ndarray] | None = None

    def __call__(self, frames_per_call: int) -> ir.Model:
        """The encoder of so many frames a call."""
        options = self._making.prepared.options
        graph = export_encoder(self._vision, frames_per_call)
        if options.encoder_format == "w8a8":
            if self._largest is None:
                self._largest = self._calibrated()
            graph = quantize_encoder(graph, self._largest)
        return to_float16(graph) if options.dtype == "float16" else graph

    def _calibrated(self) -> dict[str, np.ndarray]:
        prepared = self._making.prepared

        def measure(part: FolderWriter) -> None:
            self._making.progress("calibrating the encoder")
            frames = calibration_frames(prepared.model, prepared.clips)
            stream = io.BytesIO()
            np.savez(stream, **largest_activations(self._vision, frames))  # type: ignore[arg-type]
            part.file(CALIBRATION, stream.getvalue())

        options = without(prepared.options, CALIBRATION_BLIND)
        depends = {**self._making.source, "options": options, "clips": prepared.clips}
        with np.load(self._making.parts.take("calibration", depends, measure).folder / CALIBRATION) as stored:
            return dict(stored)


def write_encoder(
    prepared: Prepared, vision: Vision, trace: EncoderTracer, progress: Callable[[str], None], part: FolderWriter
) -> VisionEntry:
    """Trace, check and write the encoder."""
    options, model = prepared.options, prepared.model
    progress(f"tracing the encoder, {prepared.frames_per_call} frames a call")
    graph = trace(prepared.frames_per_call)
    require_contract(graph, "encoder")
    geometry = model.geometry
    return VisionEntry(
        encoder=write_graph(part, "encoder.onnx", graph),
        num_frames=prepared.num_frames,
        tokens_per_frame=geometry.tokens_per_frame,
        grid_height=geometry.grid_height,
        grid_width=geometry.grid_width,
        hidden_size=geometry.hidden_size,
        image_height=geometry.image_height,
        image_width=geometry.image_width,
        frames_per_call=prepared.frames_per_call,
        resample=model.preprocessing.resample,
        saliency=options.saliency if "saliency" in vision.outputs else "",
        frame_features=options.frame_features if "frame_features" in vision.outputs else "",
        dtype="float32",
        compute_dtype=options.dtype,
        weight_format=options.encoder_format,
        calibration=tuple(clip.name for clip in prepared.clips),
    )


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
    progress: Progress,
) -> set[str]:
    """Write what is missing of the compressors' graphs in several processes; each loads torch, which takes seconds.

    Returns:
        The names of the parts that were written.

    Raises:
        ExportError: A process was killed; and whatever tracing raises.
    """
    names = [f"compressors/{compressor.key}" for compressor in compressors]
    tasks = zip(names, programs, compressors, strict=True)
    missing = [task for task in tasks if not graphs.holds(*task[:2])]
    if jobs == 1 or len(missing) < 2:
        return set()
    progress(f"tracing {len(missing)} compressors in {jobs} processes")
    place = Parts(graphs.folder, shared=graphs.shared, progress=Progress())
    made = {}
    try:
        with pool_of(min(jobs, len(missing)), start_worker) as pool:
            with interrupts_held():
                for name, program, compressor in missing:
                    write = partial(write_compressor, compressor, shapes, dtype, Progress())
                    made[pool.submit(run_task, pack_task(place.take, name, program, write))] = name
            for count, part in enumerate(as_completed(made), 1):
                part.result()
                progress.done(made[part])
                progress(f"traced {count} of {len(missing)} compressors")
    except BrokenProcessPool:
        raise ExportError(
            "a process was killed, perhaps for want of memory: run it again with fewer --jobs; finished parts are kept"
        ) from None
    return set(made.values())


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
