"""Measure what every compression method costs, and write it down.

    python scripts/compressor_costs.py [--methods NAME ...]

Each method is traced at r = 0.15 for 32 frames of 196 tokens, 896 and 3584 wide, and for 64 frames of 169, 3584 wide.
Its graph is timed in ONNX Runtime on one thread, in processor time, at the smallest and the largest of these sizes, and
built with TensorRT-RTX at all of them, for which no GPU is needed, each time in a process of its own, so that its peak
memory is its own. The figures are kept in edgevtc/methods/costs.json, which `edgevtc list methods` reads: what stands
there is not measured again unless --methods names it. From there the tables in docs/compressors.md are written.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevtc.files import write_whole

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "edgevtc" / "methods" / "costs.json"
DOCUMENT = ROOT / "docs" / "compressors.md"

SMALL, WIDE, LARGE = "32x196x896", "32x196x3584", "64x169x3584"
RETENTION = 0.15
#: Width of a frame's descriptor and of a key: SigLIP-so400m's.
TOWER_WIDTH = 1152
#: Processor seconds for which a graph is run again and again; the least of them counts.
PATIENCE_S, LEAST_RUNS, MOST_RUNS = 3.0, 3, 20
MEBIBYTE = 2**20


def sizes_of(text: str) -> tuple[int, int, int]:
    """T, N, D of a size such as 32x196x896."""
    frames, tokens, width = map(int, text.split("x"))
    return frames, tokens, width


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


def peak_bytes() -> int:
    """Most memory this process has held so far; not getrusage, whose figure a child takes over from its parent."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return 1024 * int(found[1])


def trace(method: str, size: str, folder: Path) -> dict[str, Any]:
    """Write the method's graph; what can be read off it."""
    import onnx_ir as ir

    from edgevtc.compressors import create
    from edgevtc.exporter.vision import export_compressor
    from edgevtc.methods import budget_for

    frames, tokens, width = sizes_of(size)
    budget = frames * tokens if method == "none" else budget_for(RETENTION, frames, tokens)
    shapes = {
        "frame_tokens": (frames, tokens, width),
        "saliency": (frames, tokens),
        "frame_features": (frames, TOWER_WIDTH),
        "keys": (frames, tokens, TOWER_WIDTH),
    }
    model = export_compressor(create(method, frames, tokens, budget, retention_ratio=RETENTION).eval(), shapes)
    ir.save(model, folder / f"{method}-{size}.onnx")
    constants = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    products = [node for node in model.graph if node.op_type in ("MatMul", "Gemm")]
    multiplications = 0
    for node in products:
        left, product = node.inputs[0], node.outputs[0]
        assert left is not None and left.shape is not None and product.shape is not None
        multiplications += math.prod(map(int, product.shape)) * int(left.shape[-1])
    return {
        "budget": budget,
        "nodes": len(list(model.graph)),
        "constants_mib": round(constants / MEBIBYTE, 2),
        "gmac": round(multiplications / 1e9, 3),
    }


def run(method: str, size: str, folder: Path) -> dict[str, Any]:
    """Run the graph on a clip of scenes, with no other library than the runtime."""
    import numpy as np
    import onnxruntime as ort

    frames, tokens, width = sizes_of(size)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False  # as the package's own backend has it
    session = ort.InferenceSession(folder / f"{method}-{size}.onnx", options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    shapes = {value.name: value.shape for value in session.get_inputs()}
    features = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    x = features["frame_tokens"]
    for t in range(frames):
        # A cut every fourth frame; in between a share of the positions hardly changes.
        if t % 4 == 0:
            scene = rng.standard_normal((tokens, width), dtype=np.float32)
            still = rng.random((tokens, 1)) < 0.6
        x[t] = scene + np.where(still, np.float32(0.1), np.float32(1)) * x[t]
    if "saliency" in features:
        features["saliency"] = rng.random((frames, tokens), dtype=np.float32) / tokens
    taken: list[float] = []
    session.run(None, features)
    while len(taken) < LEAST_RUNS or (sum(taken) < PATIENCE_S and len(taken) < MOST_RUNS):
        begin = time.process_time()
        session.run(None, features)
        taken.append(time.process_time() - begin)
    return {"cpu_s": round(min(taken), 4), "peak_mb": round(peak_bytes() / 1e6)}


def engine(method: str, size: str, folder: Path) -> dict[str, Any]:
    """Build the graph with TensorRT-RTX for SM 89."""
    before, begin = peak_bytes(), time.process_time()
    nbytes, reason = build_engine(folder / f"{method}-{size}.onnx", [89])
    if nbytes is None:
        return {"build_error": reason[:200]}
    return {
        "build_s": round(time.process_time() - begin, 1),
        "build_peak_mb": round((peak_bytes() - before) / 1e6),
        "engine_mib": round(nbytes / MEBIBYTE, 2),
    }


PARTS = {"run": run, "engine": engine}

#: Size → what is measured of a graph besides what can be read off it.
MEASURED = {SMALL: ("run", "engine"), WIDE: ("engine",), LARGE: ("run", "engine")}


def in_a_process(part: str, method: str, size: str, folder: Path) -> dict[str, Any]:
    """One of PARTS in a process of its own."""
    command = [sys.executable, __file__, "--part", part, method, size, "--graphs", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{part} of {method} at {size} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(method: str, size: str, folder: Path) -> dict[str, Any]:
    """All figures of a method at a size."""
    figures = trace(method, size, folder)
    for part in MEASURED[size]:
        figures |= in_a_process(part, method, size, folder)
    return figures


def cost_table(figures: Mapping[str, Any]) -> str:
    """Time and memory of the graphs in markdown."""
    lines = [
        "| method | GMAC | CPU, ms | of the encoder | peak, MB | GMAC | CPU, ms | of the encoder | peak, MB |",
        "|---|" + "---:|" * 8,
    ]
    for method, by_size in figures["methods"].items():
        cells = [f"`{method}`"]
        for size in (SMALL, LARGE):
            found = by_size.get(size)
            if found is None:
                cells += ["–"] * 4
                continue
            share = found["cpu_s"] / (figures["encoder_s_per_frame"] * sizes_of(size)[0])
            cells += [f"{found['gmac']:.2f}", f"{1e3 * found['cpu_s']:.0f}", f"{share:.2%}", str(found["peak_mb"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def engine_table(figures: Mapping[str, Any]) -> str:
    """What the builds of the engines take in markdown: nodes, time, memory, size of the engine."""
    lines = ["| method |" + " nodes | build, s | peak, MB | engine, MiB |" * 3, "|---|" + "---:|" * 12]
    for method, by_size in figures["methods"].items():
        cells = [f"`{method}`"]
        for size in (SMALL, WIDE, LARGE):
            found = by_size.get(size, {})
            cells.append(str(found.get("nodes", "–")))
            if "build_s" in found:
                cells += [f"{found['build_s']:.1f}", str(found["build_peak_mb"]), f"{found['engine_mib']:.1f}"]
            else:
                cells += ["refused" if "build_error" in found else "–", "–", "–"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


#: Name of a section of the document → what writes its table.
TABLES = {"costs": cost_table, "engines": engine_table}


def write_document(figures: Mapping[str, Any]) -> None:
    """Put the tables between their markers."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, rest = text.split(begin)
        text = before + begin + table(figures) + end + rest.split(end)[1]
    write_whole(DOCUMENT, text)


def main() -> None:
    """Measure what is missing or named, and write the figures after each and the tables at the end."""
    from edgevtc.methods import builtin_methods

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(builtin_methods()), default=[], help="measure these again")
    parser.add_argument("--sizes", nargs="+", choices=list(MEASURED), default=list(MEASURED))
    parser.add_argument("--table", action="store_true", help="only write the tables")
    parser.add_argument("--graphs", type=Path, help="leave the graphs in this folder")
    parser.add_argument("--part", nargs=3, metavar=("PART", "METHOD", "SIZE"), help="print this part's figures")
    args = parser.parse_args()
    if args.part:
        part, method, size = args.part
        print(json.dumps(PARTS[part](method, size, args.graphs)))
        return
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    todo = [] if args.table else [(size, name) for size in args.sizes for name in args.methods or builtin_methods()]
    with tempfile.TemporaryDirectory() as folder:
        for size, method in todo:
            if not args.methods and size in figures["methods"].get(method, {}):
                continue
            figures["methods"].setdefault(method, {})[size] = measure(method, size, args.graphs or Path(folder))
            figures["methods"] = {name: figures["methods"].get(name, {}) for name in builtin_methods()}
            write_whole(FIGURES, json.dumps(figures, indent=1) + "\n")
            print(method, size, figures["methods"][method][size], flush=True)
    write_document(figures)


if __name__ == "__main__":
    main()
