"""A checkpoint becomes a bundle."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgevtc.bundle import (
    Bundle,
    BundleWriter,
    FileEntry,
    FolderWriter,
    Manifest,
    MethodEntry,
    ModelEntry,
    PromptEntry,
    VerificationEntry,
)
from edgevtc.compressors import Compressor
from edgevtc.decoder.text import TextCodec
from edgevtc.errors import ExportError
from edgevtc.exporter.decoder_parts import make_decoder
from edgevtc.exporter.flops import FLOPS_CONVENTION, prefill_gflops
from edgevtc.exporter.knowledge import read_auto, write_domain
from edgevtc.exporter.making import Making, producer
from edgevtc.exporter.options import REFERENCE_BLIND, ExportOptions, without
from edgevtc.exporter.parts import Part, Parts, working_parts
from edgevtc.exporter.plan import require_room
from edgevtc.exporter.prepare import Prepared, prepare, require_places
from edgevtc.exporter.progress import Progress, silent
from edgevtc.exporter.text import TOKENIZER
from edgevtc.exporter.verify import DEFAULT_QUESTION, REFERENCES, TorchReference, encode, reference_frames, verify_draft
from edgevtc.exporter.vision_parts import graph_name, make_vision, needs_of, open_vision
from edgevtc.measure.verify import prompt_ids

__all__ = ["export_bundle"]


def export_bundle(
    checkpoint: Path,
    output: Path,
    options: ExportOptions,
    *,
    overwrite: bool = False,
    restart: bool = False,
    cache_dir: Path | None = None,
    jobs: int = 1,
    progress: Callable[[str], None] = silent,
    count: Callable[[int, int], None] = silent,
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
        count: Called with how many parts are done, and of how many, once that is known and with each part.

    Raises:
        ConfigError: An option is not valid for this checkpoint.
        ExportError: The checkpoint cannot be exported, disk or memory do not suffice, a file cannot be written, a graph
            breaks the contract, or differs from torch.
        VideoError: The clip to verify with cannot be read.
    """
    require_places(output, overwrite=overwrite, cache_dir=cache_dir, jobs=jobs)
    prepared = prepare(checkpoint, options)
    auto = read_auto(checkpoint, {(compressor.spec.name, compressor.budget) for compressor in prepared.compressors})
    model = prepared.model
    frames, frames_source = reference_frames(model, prepared.num_frames, options.clip)
    writer = BundleWriter(output, overwrite)
    told = Progress(part_names(prepared), progress, count)
    if prepared.frames_per_call < min(options.frames_per_call, prepared.num_frames):
        told(
            f"encoding {prepared.frames_per_call} frames a call: no number up to {options.frames_per_call} above that "
            f"divides {prepared.num_frames}"
        )
    parts = working_parts(writer.path, told)
    if restart:
        parts.clear()
    require_room(prepared.plan, writer.path, options, held=parts.size())
    graphs = Parts(cache_dir, shared=True, progress=told) if cache_dir is not None else parts
    with going_on(output), writer:
        making = Making(prepared, writer, parts, graphs, jobs, told)
        question = options.examples[0] if options.examples else DEFAULT_QUESTION
        vision, programs = make_vision(making)
        gc.collect()  # the tracer leaves cycles that hold the weights
        decoder = make_decoder(making)
        ids = write_texts(making, question)
        domain = write_domain(writer, checkpoint, vision.hidden_size)
        held = make_reference(making, programs, frames, ids)
        held.give(writer, REFERENCES)

        def manifest(verification: VerificationEntry, files: dict[str, FileEntry]) -> Manifest:
            return Manifest(
                model=ModelEntry(
                    options.name or checkpoint.resolve().name, model.model_type, options.revision, options.licence
                ),
                vision=vision,
                methods=tuple(method_entry(prepared, compressor) for compressor in prepared.compressors),
                decoder=decoder,
                prompt=PromptEntry(model.prompt.video_token, model.prompt.video_newline, options.examples),
                files=files,
                producer=producer(),
                flops_convention=FLOPS_CONVENTION,
                verification=verification,
                auto=auto,
                domain=domain,
            )

        verification = VerificationEntry(REFERENCES, frames_source, question)
        draft = writer.draft(partial(manifest, verification))
        try:
            verified = verify_draft(draft, verification, TorchReference.read(model, held.folder), told)
        except ExportError:
            parts.clear()  # what differs from torch is nothing to build on
            raise
        bundle = writer.finish(partial(manifest, verified))
        parts.clear()
        return bundle


@contextmanager
def going_on(output: Path) -> Iterator[None]:
    """Say how an export goes on that a file stopped, be it one that is read or a temporary one.

    Raises:
        ExportError: For every OSError but that of a reader of our output who went away.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExportError(
            f"the export to {output} stopped at {error.filename or 'a temporary file'} ({error.strerror or error}): "
            "finished parts are kept, so mend that and run it again"
        ) from None


def part_names(prepared: Prepared) -> list[str]:
    """All that an export makes or takes over, and then verifies."""
    keys, options = [compressor.key for compressor in prepared.compressors], prepared.options
    graphs = [
        "encoder",
        *(f"compressors/{key}" for key in keys),
        *(f"vision/{key}" for key in keys if options.fused),
        *(f"decoder/{weight_format}" for weight_format in options.weight_formats),
    ]
    verified = [*(f"{graph}.onnx" for graph in graphs), "prompt", "token embeddings", "answer"]
    return [*graphs, "embeddings", "references", *verified]


def write_texts(making: Making, question: str) -> list[int]:
    """Tokenizer, chat template and the smaller configurations, into the bundle; returns the question's token ids."""
    making.progress("writing texts")
    writer = making.writer
    for name, content in making.prepared.texts.items():
        writer.file(name, content)
    return prompt_ids(writer.folder, TextCodec(writer.folder / TOKENIZER), question)


def make_reference(
    making: Making, programs: Sequence[Mapping[str, Any]], frames: np.ndarray, prompt_ids: Sequence[int]
) -> Part:
    """What torch makes of the frames and the question: computed, or taken over."""
    prepared = making.prepared

    def write_reference(part: FolderWriter) -> None:
        making.progress("computing the reference in torch")
        # The tower is read once more and gone when the language model runs: two models never stand in memory.
        features = encode(open_vision(prepared), frames)
        TorchReference.compute(prepared.model, features, prepared.compressors, frames, prompt_ids).write(part)

    depends = {
        **making.source,
        "needs": needs_of(prepared.compressors),
        "num_frames": prepared.num_frames,
        "programs": programs,
        "prompt_ids": prompt_ids,
        "frames": hashlib.sha256(frames.tobytes()).hexdigest(),
        "options": without(prepared.options, REFERENCE_BLIND),
    }
    return making.parts.take("references", depends, write_reference)


def method_entry(prepared: Prepared, compressor: Compressor) -> MethodEntry:
    """What the manifest says of one method at one budget."""
    spec, options = compressor.spec, prepared.options
    return MethodEntry(
        name=spec.name,
        budget=compressor.budget,
        retention_ratio=compressor.retention_ratio,
        needs=spec.needs,
        positions=options.positions or spec.positions,
        config=compressor.config,
        compressor=graph_name("compressors", compressor),
        fused=graph_name("vision", compressor) if options.fused else "",
        prefill_gflops=prefill_gflops(prepared.config, compressor.budget),
    )
