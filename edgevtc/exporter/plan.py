"""What an export will take, said before it starts: from the configuration and the files' headers, no weight read."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from rich.filesize import decimal

from edgevtc.compressors import Compressor
from edgevtc.decoder.generator import PREFILL_CHUNK
from edgevtc.errors import ExportError
from edgevtc.exporter.decoder import build_decoder
from edgevtc.exporter.decoder_config import DecoderConfig
from edgevtc.exporter.options import ExportOptions
from edgevtc.exporter.streamed import layer_of
from edgevtc.files import nearest_folder
from edgevtc.models import ModelAdapter

__all__ = ["ExportPlan", "plan_export", "require_room"]

#: Of a graph file, weights aside: a node with its name and shapes, and as many nodes as a compressor has.
NODE_BYTES, COMPRESSOR_NODES = 400, 250

#: Nodes of one layer of a traced vision tower.
TOWER_LAYER_NODES = 35

#: Bytes of a vision weight on disk. Of w8a8 encoders the first product and the position embeddings stay float32.
VISION_BYTES = {"float32": 4.0, "float16": 2.0, "w8a8": 1.25}

#: Bytes of a number in float32; ONNX Runtime's kernels too hold vision weights in it, or in less.
FLOAT = 4

#: Bytes a number of a matrix takes while it is written: read as float32, and quantized or brought into another order.
WRITING_BYTES = 2 * FLOAT

#: ONNX Runtime's arena holds this many times the activations that live at once.
ARENA = 3

#: Memory that a step takes for what lives in it at once, as allocators keep pieces of what came before. With it, and
#: 1 GB for the libraries, the peaks of exports at full width stay within the plan (docs/export.md).
HELD = 1.25

#: Copies of the visual tokens of all frames: those under four strengths of noise, torch's own and those to compare.
COPIES = 8

#: Numbers that live at once for a row of a decoder's prompt: of the MLP, and of the residual's width.
ROW_MLP, ROW_WIDTH = 3, 10

#: Rows of a prompt beside the visual tokens, and of the answer: a question, and what a cache is rounded up to.
TEXT_ROWS = 512

MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class ExportPlan:
    """What an export will take.

    Attributes:
        disk_bytes: Part of the bundle → bytes on disk.
        memory_bytes: Step → bytes it needs beside what the process has already.
    """

    disk_bytes: dict[str, int]
    memory_bytes: dict[str, int]

    @property
    def total_disk_bytes(self) -> int:
        """The whole bundle."""
        return sum(self.disk_bytes.values())

    @property
    def peak_memory_bytes(self) -> int:
        """The step that needs most."""
        return max(self.memory_bytes.values())


def plan_export(
    model: ModelAdapter,
    config: DecoderConfig,
    compressors: Sequence[Compressor],
    weight_formats: Sequence[str],
    *,
    frames_per_call: int,
    fused: bool,
    vision_format: str = "float32",
) -> ExportPlan:
    """Work out an export's size on disk and its peak memory.

    Args:
        model: The checkpoint.
        config: Its decoder.
        compressors: Every method at every budget.
        weight_formats: Of the decoder.
        frames_per_call: C.
        fused: Whether there are graphs from frames to tokens.
        vision_format: A key of `VISION_BYTES`.

    Raises:
        ExportError: The checkpoint lacks a tensor of the decoder.
    """
    vision, geometry = model.vision_size(), model.geometry
    num_frames = compressors[0].num_frames
    tower_nodes = TOWER_LAYER_NODES * vision.layers
    weights, nodes = model.decoder_weights(), 0
    tensors: dict[tuple[str, str, str], int] = {}
    loaded = 0  # of a decoder at a time, see StreamedBackend
    for weight_format in weight_formats:
        graph = build_decoder(config, weights, weight_format).graph
        found = tensor_bytes(graph)
        pieces: Counter[str] = Counter()
        for (name, *_), size in found.items():
            pieces[layer_of(name)] += size
        loaded = max(loaded, *pieces.values())
        tensors.update(found)  # formats share their head, norms and biases
        nodes += len(graph)
    embeddings = config.vocab_size * config.hidden_size
    clip_tokens = num_frames * geometry.tokens_per_frame * geometry.hidden_size
    frames = num_frames * geometry.image_height * geometry.image_width * 3
    graphs = tower_nodes + nodes + len(compressors) * (COMPRESSOR_NODES + fused * (tower_nodes + COMPRESSOR_NODES))
    clip = COPIES * FLOAT * clip_tokens + frames
    tower = FLOAT * (vision.parameters + vision.activations)
    converted = 0 if vision_format == "float32" else int(VISION_BYTES[vision_format] * vision.parameters)
    mlp, rows = config.hidden_size * config.intermediate_size, compressors[0].budget + TEXT_ROWS
    rotary = config.max_positions * config.head_dim // 2
    row = ROW_MLP * config.intermediate_size + ROW_WIDTH * config.hidden_size
    torch_layer = 3 * mlp + 2 * config.hidden_size * config.head_dim * (config.num_heads + config.num_kv_heads)
    torch_decoder = FLOAT * (max(torch_layer, embeddings) + rows * (row + 2 * rows))
    cache = 2 * FLOAT * config.num_layers * config.num_kv_heads * config.head_dim * rows
    ort_layer = loaded + FLOAT * PREFILL_CHUNK * row
    frames_at_once = num_frames if fused else frames_per_call
    lives = {
        "writing": max(tower + converted, WRITING_BYTES * max(embeddings, 2 * mlp, rotary)),
        "reference": clip + max(tower, torch_decoder),
        "verifying_vision": clip + FLOAT * (vision.parameters + ARENA * vision.activations * frames_at_once),
        "verifying_decoder": clip + cache + ort_layer,
        "verifying_an_answer": clip + cache + max(ort_layer, torch_decoder),
    }
    return ExportPlan(
        disk_bytes={
            "vision": int(VISION_BYTES[vision_format] * vision.parameters),
            "decoder": sum(tensors.values()),
            "token_embeddings": 2 * embeddings,
            "references": frames + FLOAT * clip_tokens + FLOAT * config.vocab_size,
            "graphs": graphs * NODE_BYTES,
        },
        memory_bytes={step: int(HELD * size) for step, size in lives.items()},
    )


def tensor_bytes(graph: ir.Graph) -> dict[tuple[str, str, str], int]:
    """Name, type and shape → bytes of a graph's initializers; lazy ones are not read."""
    values = ((name, value.const_value) for name, value in graph.initializers.items())
    return {(name, str(t.dtype), str(t.shape)): t.nbytes for name, t in values if t is not None}


def require_room(plan: ExportPlan, output: Path, options: ExportOptions, *, held: int = 0, beside: int = 0) -> None:
    """Raise unless the bundle fits on the disk it goes to, and its making into this machine's memory.

    Args:
        plan: What the export takes.
        output: Where the bundle will stand.
        options: What is exported; what of it could be left out is said.
        held: Bytes of it that are on the disk already.
        beside: Bytes that have to be downloaded to that disk before.

    Raises:
        ExportError: It does not; the message says what is needed and what there is.
    """
    folder = nearest_folder(output.absolute().parent)
    smaller = [
        *(["leave out weight formats"] if len(options.weight_formats) > 1 else []),
        *(["give fewer --max-positions"] if options.max_positions else []),
    ]
    if plan.total_disk_bytes - held + beside > (free := shutil.disk_usage(folder).free):
        download = f", its checkpoint {decimal(beside)} to download" if beside else ""
        raise ExportError(
            f"the bundle takes {decimal(plan.total_disk_bytes)}{download}, {folder} has {decimal(free)} free: "
            + alternatives(["make room", "choose another disk with -o", *smaller])
        )
    step = max(plan.memory_bytes, key=lambda name: plan.memory_bytes[name])
    if plan.peak_memory_bytes > (available := available_memory()):
        graphs = ["leave out the graphs from frames to tokens with --no-fused"] if options.fused else []
        raise ExportError(
            f"{step.replace('_', ' ')} takes {decimal(plan.peak_memory_bytes)} of memory, "
            f"{decimal(available)} are available: "
            + alternatives(["close other programs", "use a larger machine", *smaller, *graphs])
        )


def alternatives(remedies: Sequence[str]) -> str:
    """Two or more things that would each do, as words."""
    return f"{', '.join(remedies[:-1])} or {remedies[-1]}"


def available_memory() -> int:
    """Bytes the system can give without pushing anything out that is in use, swap included."""
    fields = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
