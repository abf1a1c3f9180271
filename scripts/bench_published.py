"""Time HoliTom's graph beside the published code, whose functions run as they are.

    git clone https://github.com/cokeshao/HoliTom
    python scripts/bench_published.py --source HoliTom

Each runs in processes of its own, which take turns: the graph's memory would change what the published code finds of
the allocator's. One thread, processor time; the median of a process's calls after the first, and of the processes.
About half of the published code's time goes into memory that it gives back and asks for again; to let the allocator
keep it, set MALLOC_MMAP_THRESHOLD_=4294967296 and MALLOC_TRIM_THRESHOLD_=8589934592.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx_ir as ir
import torch
from bench_compressors import make_clip, session_of
from torch import Tensor
from torch.nn import functional

from edgevtc.compressors import Compressor, create
from edgevtc.exporter.vision import export_compressor
from edgevtc.methods import budget_for

#: Clip → frames from one cut to the next, share of positions that do not change in between.
CLIPS = {
    "a cut every 2 frames, 60 % static": (2, 0.6),
    "a cut every 4 frames, 60 % static": (4, 0.6),
    "a cut every 8 frames, 60 % static": (8, 0.6),
    "one scene, 60 % static": (1024, 0.6),
    "a cut every 8 frames, 95 % static": (8, 0.95),
    "noise": (1, 0.0),
}

#: What the published module imports besides torch, and does not use in the functions that are run.
UNUSED_IMPORTS = ("llava", "llava.constants", "llava.mm_utils", "llava.utils")


def published_functions(source: Path) -> Any:
    """HoliTom's functions on tokens, from the folder that its repository was cloned to."""
    file = source / "holitom" / "llava_arch.py"
    if not file.is_file():
        raise SystemExit(f"{file} is not there: give the folder of a clone of github.com/cokeshao/HoliTom as --source")
    for name in UNUSED_IMPORTS:
        module = ModuleType(name)
        module.__getattr__ = lambda attribute: None  # type: ignore[method-assign]
        sys.modules.setdefault(name, module)
    spec = importlib.util.spec_from_file_location("published_holitom", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LlavaMetaForCausalLM_holitom()


def published(functions: Any, x: Tensor, saliency: Tensor, retention: float, config: dict[str, Any]) -> tuple[int, int]:
    """Compress tokens x [T, N, D] as `prepare_inputs_labels_for_multimodal` does; windows and tokens kept."""
    frames, size, _ = x.shape
    tau, beta, neighbours = config["threshold"], config["merge_weight"], config["neighbours"]
    unit = functional.normalize(x, p=2, dim=-1)
    similarity = functional.cosine_similarity(unit[:-1], unit[1:], dim=-1)
    windows, reduced = functions.select_static_windows(similarity, frames, tau, config["max_window"])
    spread = min(retention / ((frames * size - reduced) / (frames * size)), 1)
    static, dynamic, _, weights, static_at, dynamic_at = functions.get_static_dynamic_features(
        x, saliency, windows, similarity, tau
    )
    parts = [
        functions.holitom(*parts, end - start + 1, spread, 0.0, beta, neighbours, x.dtype, "one_token")
        for *parts, (start, end) in zip(static, dynamic, weights, static_at, dynamic_at, windows, strict=True)
    ]
    return len(windows), len(torch.cat(parts))


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Clip → windows, tokens kept, and the median of processor seconds, of the published code or of a graph."""
    frames, size, dim = map(int, args.size.split("x"))
    session = session_of(args.graph) if args.graph else None
    functions = None if session else published_functions(args.source)
    compressor = create_holitom(args)
    found = {}
    for name, (scene, static) in CLIPS.items():
        clip = make_clip(frames, size, dim, scene=scene, static=static)
        needs = {key: clip[key] for key in ("frame_tokens", "saliency")}
        x, saliency = map(torch.from_numpy, needs.values())
        seconds, windows, kept = [], 0, compressor.budget
        for _ in range(args.repeats + 1):
            begin = time.process_time()
            if session:
                session.run(None, needs)
            else:
                windows, kept = published(functions, x, saliency, args.retention_ratio, compressor.config)
            seconds.append(time.process_time() - begin)
        found[name] = {"windows": windows, "kept": kept, "median_s": statistics.median(seconds[1:])}
    return found


def create_holitom(args: argparse.Namespace) -> Compressor:
    """HoliTom of the size and retention ratio asked for."""
    frames, size, _ = map(int, args.size.split("x"))
    budget = budget_for(args.retention_ratio, frames, size)
    return create("holitom", frames, size, budget, retention_ratio=args.retention_ratio).eval()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of the published repository")
    parser.add_argument("--size", default="32x196x896", help="TxNxD")
    parser.add_argument("--retention-ratio", type=float, default=0.15)
    parser.add_argument("--repeats", type=int, default=15, help="calls of a process for each clip, after one more")
    parser.add_argument("--processes", type=int, default=5, help="of each")
    parser.add_argument("--graph", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--calls", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if args.calls:
        print(json.dumps(measure(args)))
        return
    compressor = create_holitom(args)
    frames, size, dim = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "holitom.onnx"
        ir.save(export_compressor(compressor, {"frame_tokens": (frames, size, dim), "saliency": (frames, size)}), graph)
        both: list[list[dict[str, dict[str, Any]]]] = []
        for _ in range(args.processes):
            commands = [[sys.executable, *sys.argv, "--calls", *words] for words in ([], ["--graph", str(graph)])]
            both.append(
                [json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) for command in commands]
            )
    print(f"{compressor.budget} tokens kept; in brackets how many the published code keeps\n")
    print("| clip | windows | published, ms | graph, ms | ratio |\n|---|---:|---:|---:|---:|")
    for name in CLIPS:
        first = both[0][0][name]
        theirs, ours = (1e3 * statistics.median(pair[i][name]["median_s"] for pair in both) for i in range(2))
        print(f"| {name} | {first['windows']} | {theirs:.0f} ({first['kept']}) | {ours:.1f} | {theirs / ours:.1f} |")
    ratios = [
        statistics.mean(theirs[name]["median_s"] / ours[name]["median_s"] for name in CLIPS) for theirs, ours in both
    ]
    print(f"\nmean ratio by process: {', '.join(f'{ratio:.1f}' for ratio in sorted(ratios))}")


if __name__ == "__main__":
    main()
