"""Time every compression method on one thread: its ONNX Runtime graph, its torch program, its published form.

    python scripts/bench_compressors.py --sizes 32x196x896 64x169x3584 --retention-ratio 0.15

They are timed in turns within one run, in processor time, so that other work on the machine weighs on all alike.
The published form of HoliTom, in plain torch, loops over windows, frames and clusters and lets as many tokens come
out as will; its work depends on the clip, that of a fixed-shape graph never does. Peak memory is that of a process
that only loads the graph and runs it, the clip included.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor
from torch.nn import functional

from edgevtc.compressors import create
from edgevtc.exporter.vision import export_compressor
from edgevtc.methods import budget_for, builtin_methods, method_spec

Features = dict[str, np.ndarray]

#: Frames from one cut of the synthetic clip to the next, and its share of positions that do not change in between.
SCENE, STATIC = 4, 0.6


def make_clip(frames: int, size: int, dim: int, seed: int = 0, scene: int = SCENE, static: float = STATIC) -> Features:
    """Scenes of so many frames with a static share and noise, float32, with every feature a method may need."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((frames, size, dim), dtype=np.float32)
    for t in range(frames):
        if t % scene == 0:
            background = rng.standard_normal((size, dim), dtype=np.float32)
            still = rng.random((size, 1)) < static
        x[t] = background + np.where(still, np.float32(0.1), np.float32(1)) * x[t]
    saliency = rng.random((frames, size), dtype=np.float32) / size
    return {"frame_tokens": x, "saliency": saliency, "frame_features": x.mean(1), "keys": x[..., :64].copy()}


def plain_holitom(clip: Features, retention: float) -> Tensor:
    """HoliTom's stage before the LLM as published: plain loops, and a number of tokens that depends on the clip."""
    x, saliency = torch.from_numpy(clip["frame_tokens"]), torch.from_numpy(clip["saliency"])
    config = method_spec("holitom").configure(retention)
    frames, size, _ = x.shape
    unit = functional.normalize(x, dim=-1)
    still = (unit[1:] * unit[:-1]).sum(-1) > config["threshold"]

    best, choice = [0] * (frames + 1), [0] * (frames + 1)
    for end in range(1, frames + 1):
        best[end], choice[end] = best[end - 1], end - 1
        for start in range(end - 2, -1, -1):
            gain = int(still[start : end - 1].all(0).sum()) * (end - start - 1)
            if best[start] + gain > best[end]:
                best[end], choice[end] = best[start] + gain, start
    windows, end = [], frames
    while end:
        windows.append((choice[end], end))
        end = choice[end]

    spread = min(retention * frames * size / (frames * size - best[frames]), 1)
    out = []
    for start, end in reversed(windows):
        static = still[start : end - 1].all(0) if end - start > 1 else torch.zeros(size, dtype=torch.bool)
        merged = x[start:end, static].mean(0)
        if clusters := round(len(merged) * spread):
            out.append(plain_clusters(merged, clusters, config["neighbours"], config["merge_weight"]))
        for t in range(start, end):
            dynamic, weight = x[t, ~static], saliency[t, ~static]
            out.append(dynamic[weight.topk(math.ceil(len(dynamic) * spread)).indices.sort().values])
    return torch.cat(out)


def plain_clusters(x: Tensor, clusters: int, neighbours: int, beta: float) -> Tensor:
    """DPC-KNN with HoliTom's merge."""
    distance = torch.cdist(x[None], x[None])[0] / x.shape[1] ** 0.5
    near = distance.topk(min(neighbours, clusters), largest=False).values
    density = torch.exp(-near.square().mean(1))
    denser = density[None, :] > density[:, None]
    score = density * torch.where(denser, distance, distance.max()).amin(1)
    centres = score.topk(clusters).indices.sort().values
    label = distance[:, centres].argmin(1)
    label[centres] = torch.arange(clusters)
    is_centre = torch.zeros(len(x), dtype=torch.bool).index_fill(0, centres, True)
    rows = []
    for cluster, centre in enumerate(centres):
        others = x[(label == cluster) & ~is_centre]
        rows.append(beta * x[centre] + (1 - beta) * others.mean(0) if len(others) else x[centre])
    return torch.stack(rows)


#: Method → plain form: clip, retention ratio → tokens.
PLAIN: dict[str, Callable[[Features, float], Tensor]] = {"holitom": plain_holitom}


def session_of(graph: Path) -> ort.InferenceSession:
    """The graph on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False  # as the package's own backend has it
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def processor_times(runs: list[Callable[[], object]], repeats: int) -> list[float]:
    """Least processor seconds of each, taken in turns after one turn to warm up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats + 1):
        for run, taken in zip(runs, seconds, strict=True):
            begin = time.process_time()
            run()
            if turn:
                taken.append(time.process_time() - begin)
    return [min(taken) for taken in seconds]


def peak_memory(graph: Path, clip_file: Path) -> int:
    """Bytes, measured in a process of its own."""
    command = [sys.executable, "-c", PEAK_PROGRAM, str(graph), str(clip_file)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


#: Runs a graph once without torch, whose import alone weighs more than most graphs need.
PEAK_PROGRAM = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.enable_mem_pattern = False
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
clip = np.load(sys.argv[2])
session.run(None, {value.name: clip[value.name] for value in session.get_inputs()})
# The high-water mark that getrusage gives is inherited from the parent process.
print(1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
"""


def measure(method: str, clip: Features, retention: float, repeats: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    frames, size, dim = clip["frame_tokens"].shape
    budget = frames * size if method == "none" else budget_for(retention, frames, size)
    compressor = create(method, frames, size, budget, retention_ratio=retention).eval()
    needs = {name: clip[name] for name in compressor.spec.needs}
    model = export_compressor(compressor, {name: value.shape for name, value in needs.items()})
    graph, clip_file = folder / f"{method}.onnx", folder / "clip.npz"
    ir.save(model, graph)
    np.savez(clip_file, **needs)
    session = session_of(graph)
    inputs = [torch.from_numpy(value) for value in needs.values()]
    runs: list[Callable[[], object]] = [lambda: session.run(None, needs), lambda: compressor(*inputs)]
    if method in PLAIN:
        runs.append(lambda: PLAIN[method](clip, retention))
    graph_s, torch_s, *plain_s = processor_times(runs, repeats)
    return {
        "method": method,
        "size": f"{frames}x{size}x{dim}",
        "budget": budget,
        "nodes": len(list(model.graph)),
        "graph_cpu_s": graph_s,
        "torch_cpu_s": torch_s,
        "plain_cpu_s": plain_s[0] if plain_s else None,
        "peak_memory_mb": peak_memory(graph, clip_file) / 1e6,
    }


def main() -> None:
    """Measure, print a table, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=sorted(builtin_methods()))
    parser.add_argument("--sizes", nargs="+", default=["32x196x896", "64x169x3584"], help="TxNxD")
    parser.add_argument("--retention-ratio", type=float, default=0.15)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    rows = []
    print("| method | T×N×D | B | nodes | graph, ms | program in torch, ms | published form in torch, ms | peak, MB |")
    print("|---|---|---|---|---|---|---|---|")
    for sizes in args.sizes:
        frames, size, dim = map(int, sizes.split("x"))
        clip = make_clip(frames, size, dim)
        for method in args.methods:
            with tempfile.TemporaryDirectory() as folder:
                row = measure(method, clip, args.retention_ratio, args.repeats, Path(folder))
            rows.append(row)
            graph_s = row["graph_cpu_s"]
            others = [row["torch_cpu_s"], row["plain_cpu_s"]]
            columns = " | ".join("–" if t is None else f"{1e3 * t:.0f} ({t / graph_s:.1f}×)" for t in others)
            print(
                f"| {method} | {sizes.replace('x', '×')} | {row['budget']} | {row['nodes']} "
                f"| {1e3 * graph_s:.0f} | {columns} | {row['peak_memory_mb']:.0f} |",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
