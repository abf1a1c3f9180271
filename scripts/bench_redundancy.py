"""How much of a clip's visual tokens repeats: what a compressor can take without taking anything away.

    python scripts/bench_redundancy.py --videos 50                  # clips of the world's test split, embedded bundle
    python scripts/bench_redundancy.py --bundle DIR clip.mp4 …      # clips of one's own

Prints, as shares of all tokens but those of the first frame, how many have a cosine above a threshold with the token at
their position one frame before, and how many with the nearest token of that frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevtc import Runner
from edgevtc.eval.clips import Clips

THRESHOLDS = (0.8, 0.9, 0.95)


def cosines(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """[2, T−1, N]: of each token [T, N, D] with its position's one frame before, and with the nearest of that frame."""
    unit = tokens / np.maximum(np.linalg.norm(tokens, axis=-1, keepdims=True), 1e-6)
    pairs = unit[1:] @ unit[:-1].transpose(0, 2, 1)
    return np.stack([np.diagonal(pairs, axis1=1, axis2=2), pairs.max(-1)])


def main() -> None:
    """Parse arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, help="video files; none: clips of the world")
    parser.add_argument("--bundle", help="folder (default: the embedded one)")
    parser.add_argument("--videos", type=int, default=50, help="clips of the world")
    parser.add_argument("--split", default="test", choices=["dev", "test"])
    parser.add_argument("--folder", type=Path, default=Path("runs/clips"), help="where clips of the world are kept")
    options = parser.parse_args()
    runner = Runner(options.bundle, method="none", guess=True)
    world = Clips(options.split, 0, 10, options.folder)
    paths = options.clips or [world.file(index) for index in range(options.videos)]
    found = [cosines(runner.open(path).encoded.features["frame_tokens"]) for path in paths]
    if not options.clips:
        shown = [(world.sample(index).labels["shape"] > 0).mean() for index in range(options.videos)]
        print(f"{100 * np.mean(shown):.0f} % of the tokens have a thing, a flash or a sign in their middle\n")
    print(f"{len(paths)} clips: % of tokens with a cosine to the frame before, median (10th to 90th percentile)\n")
    print("| above | at the same position | nearest of that frame |\n|---:|---:|---:|")
    for threshold in THRESHOLDS:
        shares = 100 * np.array([(values > threshold).mean((1, 2)) for values in found])
        low, middle, high = np.percentile(shares, (10, 50, 90), axis=0)
        cells = [f"{middle[i]:.0f} ({low[i]:.0f} to {high[i]:.0f})" for i in range(2)]
        print(f"| {threshold} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
