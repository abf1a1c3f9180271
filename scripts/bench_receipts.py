"""What every method of a bundle decides of some clips, a line each: to compare runtimes, versions, machines with diff.

    python scripts/bench_receipts.py > here.txt                     # the embedded bundle, the samples
    python scripts/bench_receipts.py --unoptimized > plain.txt      # the graphs as they are written
    diff here.txt plain.txt && echo alike

A line has the clip, the method and its budget, the hashes of the kept positions (as in `edgevtc ask --json`), of the
segments, and of the assignment, which says where all other tokens went.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import onnxruntime

from edgevtc import Runner

SAMPLES = Path(__file__).parents[1] / "samples"


def leave_graphs_unoptimized() -> None:
    """Have every session of this process run its graph node by node."""
    plain = onnxruntime.SessionOptions

    def options() -> onnxruntime.SessionOptions:
        made = plain()
        made.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return made

    onnxruntime.SessionOptions = options


def hashed(values: np.ndarray | None) -> str:
    """The first ten digits of the hash of int32 values; a dash for none."""
    return "-" if values is None else hashlib.sha256(values.astype("<i4").tobytes()).hexdigest()[:10]


def main() -> None:
    """Parse arguments, print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, help="video files (default: the samples)")
    parser.add_argument("--bundle", help="folder (default: the embedded one)")
    parser.add_argument("--unoptimized", action="store_true", help="without ONNX Runtime's graph optimizations")
    options = parser.parse_args()
    if options.unoptimized:
        leave_graphs_unoptimized()
    runner = Runner(options.bundle, method="none", guess=True, threads=1)
    for clip in options.clips or sorted(SAMPLES.glob("*.mp4")):
        video = runner.open(clip).encoded
        for method in runner.bundle.manifest.methods:
            visual = runner.vision.compress(video, method)
            decided = map(hashed, (visual.positions, visual.segments, visual.assignment))
            print(clip.name, method.name, method.budget, *decided)


if __name__ == "__main__":
    main()
