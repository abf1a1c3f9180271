"""Time HoliTom's graph beside the published code, whose functions run as they are.

    git clone https://github.com/cokeshao/HoliTom
    python scripts/bench_published.py --source HoliTom

The two take turns on the same clips on one thread, in processor time, and the least of the turns counts. About half of
the published code's time goes into memory that it gives back and asks for again; to let the allocator keep it, set
MALLOC_MMAP_THRESHOLD_=4294967296 and MALLOC_TRIM_THRESHOLD_=8589934592.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx_ir as ir
import torch
from bench_compressors import make_clip, processor_times, session_of
from torch import Tensor
from torch.nn import functional

from edgevtc.compressors import create
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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of the published repository")
    parser.add_argument("--size", default="32x196x896", help="TxNxD")
    parser.add_argument("--retention-ratio", type=float, default=0.15)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    functions = published_functions(args.source)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    frames, size, dim = map(int, args.size.split("x"))
    retention = args.retention_ratio
    compressor = create("holitom", frames, size, budget_for(retention, frames, size), retention_ratio=retention).eval()
    with tempfile.TemporaryDirectory() as folder:
        shapes = {"frame_tokens": (frames, size, dim), "saliency": (frames, size)}
        ir.save(export_compressor(compressor, shapes), Path(folder) / "holitom.onnx")
        session = session_of(Path(folder) / "holitom.onnx")
    print(f"{compressor.budget} tokens kept; in brackets how many the published code keeps\n")
    print("| clip | windows | published, ms | graph, ms | ratio |\n|---|---:|---:|---:|---:|")
    ratios = []
    for name, (scene, static) in CLIPS.items():
        clip = make_clip(frames, size, dim, scene=scene, static=static)
        needs = {key: clip[key] for key in shapes}
        x, saliency = map(torch.from_numpy, needs.values())

        def theirs(x: Tensor = x, saliency: Tensor = saliency) -> tuple[int, int]:
            return published(functions, x, saliency, retention, compressor.config)

        def ours(needs: Any = needs) -> object:
            return session.run(None, needs)

        windows, kept = theirs()
        published_s, graph_s = processor_times([theirs, ours], args.repeats)
        ratios.append(published_s / graph_s)
        print(
            f"| {name} | {windows} | {1e3 * published_s:.0f} ({kept}) | {1e3 * graph_s:.1f} | {ratios[-1]:.1f} |",
            flush=True,
        )
    print(f"\nmean ratio {statistics.mean(ratios):.1f}")


if __name__ == "__main__":
    main()
