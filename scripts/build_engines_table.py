"""Build every method's compressor with TensorRT-RTX and print what it costs, as a markdown table.

    python scripts/build_engines_table.py [--retention-ratio 0.1] [--methods infomerge holitom] [--capability 89]

Sizes are those of LLaVA-OneVision 7B (32 frames of 196 tokens, 3584 wide) and LLaVA-Video 7B (64 frames of 169).
Engines are built ahead of time for a compute capability; no GPU is needed. Each build runs in a process of its own, so
that its peak memory can be told.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = ((32, 196, 3584), (64, 169, 3584))
#: Width of a frame's descriptor and of a key: SigLIP-so400m's.
TOWER_WIDTH = 1152
MEBIBYTE = 2**20


def build_engine(graph: Path, capabilities: list[int], root: Path | None = None) -> tuple[int | None, str]:
    """Parse and build a graph.

    Args:
        graph: The ONNX file.
        capabilities: SM versions the engine is to run on, as in [89, 120].
        root: Folder that external data are relative to; the graph's own where None.

    Returns:
        Size of the engine in bytes and "", or None and the reason why there is none.
    """
    import tensorrt_rtx as trt

    class Errors(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.messages.append(message)

    errors = Errors()
    builder = trt.Builder(errors)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    if not trt.OnnxParser(network, errors).parse(graph.read_bytes(), str((root or graph.parent) / graph.name)):
        return None, " ".join(errors.messages)
    config = builder.create_builder_config()
    # Decisions are float32: ten mantissa bits would move thresholds and break prefix counts above 2048.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), index)
    plan = builder.build_serialized_network(network, config)
    return (None, " ".join(errors.messages)) if plan is None else (plan.nbytes, "")


def peak_mib() -> float:
    """Most memory this process has held so far; not getrusage, whose figure a child takes over from its parent."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024


def measure(graph: Path, capability: int) -> dict[str, Any]:
    """Build a graph in this process; what it took."""
    before = peak_mib()
    started = time.perf_counter()
    size, reason = build_engine(graph, [capability])
    return {
        "build_s": time.perf_counter() - started,
        "peak_mib": peak_mib() - before,
        "engine_mib": size and size / MEBIBYTE,
        "reason": reason,
    }


def row(name: str, size: tuple[int, int, int], retention_ratio: float, capability: int, folder: Path) -> str:
    """Export one compressor, build it, and describe it as a row of the table."""
    import onnx_ir as ir

    from edgevtc.compressors import create
    from edgevtc.exporter.vision import export_compressor
    from edgevtc.methods import budget_for

    frames, tokens, width = size
    budget = frames * tokens if name == "none" else budget_for(retention_ratio, frames, tokens)
    shapes = {
        "frame_tokens": (frames, tokens, width),
        "saliency": (frames, tokens),
        "frame_features": (frames, TOWER_WIDTH),
        "keys": (frames, tokens, TOWER_WIDTH),
    }
    model = export_compressor(create(name, frames, tokens, budget), shapes)
    graph = folder / f"{name}-{frames}.onnx"
    ir.save(model, graph)
    command = [sys.executable, __file__, "--capability", str(capability), "--graph", str(graph)]
    built = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    size_text = f"{frames}×{tokens}×{width} → {budget}"
    constants = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    cells = [name, size_text, f"{len(model.graph)}", f"{constants / MEBIBYTE:.1f}"]
    if built["engine_mib"] is None:
        return f"| {' | '.join(cells)} | refused: {built['reason'][:200]} | | |"
    cells += [f"{built['build_s']:.1f}", f"{built['peak_mib']:.0f}", f"{built['engine_mib']:.2f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Read the arguments and print the table, or one build's figures."""
    from edgevtc.methods import method_names

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retention-ratio", type=float, default=0.1, help="B/(T·N) of the compressors (%(default)s)")
    parser.add_argument("--methods", nargs="+", default=method_names(), help="registered methods (all)")
    parser.add_argument("--capability", type=int, default=89, help="SM version to build for (%(default)s)")
    parser.add_argument("--graph", type=Path, help="build this ONNX file only and print its figures as JSON")
    arguments = parser.parse_args()
    if arguments.graph:
        print(json.dumps(measure(arguments.graph, arguments.capability)))
        return
    print("| method | T×N×D → B | nodes | constants (MiB) | build (s) | peak memory (MiB) | engine (MiB) |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.methods:
            for size in SIZES:
                print(row(name, size, arguments.retention_ratio, arguments.capability, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
