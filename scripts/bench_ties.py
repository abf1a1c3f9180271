"""How often a method's choice hangs on rounding alone: on the order in which a runtime adds numbers up.

    python scripts/bench_ties.py --retention-ratio 0.25 0.1        # clips of the world's dev split, embedded bundle
    python scripts/bench_ties.py --bundle DIR clip.mp4 …           # clips of one's own

The channels of tokens, keys and descriptors are permuted, which changes no distance, cosine or mean, only the order of
summation.
Prints for each method the share of clips that then have another kept position, and the share of all tokens that go
elsewhere: what may differ between two backends on the same clip.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgevtc import Runner
from edgevtc.bundle import MethodEntry
from edgevtc.eval.clips import Clips
from edgevtc.vision import EncodedVideo


def decisions(runner: Runner, video: EncodedVideo, method: MethodEntry) -> tuple[np.ndarray, np.ndarray]:
    """Kept positions [B], and for every input [T·N] the position of the slot it went to, −1 for none."""
    visual = runner.vision.compress(video, method)
    slot = visual.assignment.ravel()
    return visual.positions.copy(), np.where(slot >= 0, visual.positions[slot], -1)


def permuted(video: EncodedVideo, seed: int) -> EncodedVideo:
    """The same clip with the channels of its tokens, keys and descriptors in another order."""
    rng = np.random.default_rng(seed)
    features = {
        name: value if name == "saliency" else np.ascontiguousarray(value[..., rng.permutation(value.shape[-1])])
        for name, value in video.features.items()
    }
    return replace(video, features=features)


def moved(runner: Runner, video: EncodedVideo, method: MethodEntry, draws: int) -> tuple[bool, float]:
    """Whether a kept position changes in any of some permutations, and the mean share of inputs that go elsewhere."""
    positions, went = decisions(runner, video, method)
    others = [decisions(runner, permuted(video, seed), method) for seed in range(draws)]
    elsewhere = [float((other != went).mean()) for _, other in others]
    return not all(np.array_equal(other, positions) for other, _ in others), float(np.mean(elsewhere))


def main() -> None:
    """Parse arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, help="video files; none: clips of the world")
    parser.add_argument("--bundle", help="folder (default: the embedded one)")
    parser.add_argument("--retention-ratio", type=float, nargs="+", default=[0.25, 0.1, 0.02])
    parser.add_argument("--videos", type=int, default=40, help="clips of the world")
    parser.add_argument("--draws", type=int, default=4, help="permutations of each clip")
    parser.add_argument("--folder", type=Path, default=Path("runs/clips"), help="where clips of the world are kept")
    options = parser.parse_args()
    runner = Runner(options.bundle, method="none", guess=True, threads=1)
    world = Clips("dev", 0, 10, options.folder)
    paths = options.clips or [world.file(index) for index in range(options.videos)]
    videos = [runner.open(path).encoded for path in paths]
    methods = [method for method in runner.bundle.manifest.methods if method.name != "none"]
    names = list(dict.fromkeys(method.name for method in methods))
    print(f"{len(videos)} clips, {options.draws} permutations each: % with another position (% of tokens elsewhere)\n")
    print("| method |" + "".join(f" {ratio:.0%} |" for ratio in options.retention_ratio))
    print("|---|" + "---:|" * len(options.retention_ratio))
    for name in names:
        cells = []
        for ratio in options.retention_ratio:
            (method,) = [m for m in methods if m.name == name and abs(m.retention_ratio - ratio) < 2e-3]
            found = np.array([moved(runner, video, method, options.draws) for video in videos])
            cells.append(f" {100 * found[:, 0].mean():.0f} ({100 * found[:, 1].mean():.2f}) |")
        print(f"| `{name}` |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
