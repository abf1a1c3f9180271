"""A process whose children export the tiny checkpoint, one a line of its input, and may be killed at any moment.

Each line is `traced` (tracing as always) or `reused` (graphs of an earlier export). For each, the child's number is
printed when it starts, and its exit status when it has ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from tiny_export import SHORTEST_OPTIONS

from edgevtc.exporter import vision_parts
from edgevtc.exporter.export import export_bundle


def reuse(graphs: Path) -> None:
    """Let the exporter take its graphs from a file instead of tracing."""
    with np.load(graphs) as stored:
        content = {name: stored[name].tobytes() for name in stored.files}

    def load(name: str) -> ir.Model:
        return ir.from_proto(onnx.ModelProto.FromString(content[name]))

    vision_parts.export_encoder = lambda vision, frames_per_call: load("encoder")
    vision_parts.export_compressor = lambda compressor, shapes: load("compressor")


def main(checkpoint: Path, output: Path, graphs: Path) -> None:
    # What a first export loads, the children then have. One processor: forking would lose the threads of more.
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    traced = vision_parts.export_encoder, vision_parts.export_compressor
    reuse(graphs)
    export_bundle(checkpoint, output, SHORTEST_OPTIONS, overwrite=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            if line.strip() == "traced":
                vision_parts.export_encoder, vision_parts.export_compressor = traced
            export_bundle(checkpoint, output, SHORTEST_OPTIONS, overwrite=True)
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
