"""Learn what a checkpoint's own world looks like to its encoder, so that a runner can tell foreign footage.

    python scripts/train/domain.py CHECKPOINT_FOLDER

Writes `domain.npz` into the folder, which the exporter puts into the bundle. The distances of training scenes set the
scale, those of dev scenes the limit: no foreign clip is looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from batches import shown
from network import grid_of
from numpy.typing import NDArray
from packing import see
from transformers import LlavaOnevisionForConditionalGeneration

from edgevtc.domain import Domain
from edgevtc.eval.world import SPLITS, World
from edgevtc.eval.world_outside import CANNOT_TELL
from edgevtc.files import write_whole

#: Seed of the training scenes: one that no run trains on.
SEED = len(SPLITS["train"]) - 1
#: Leading directions, and how often farther than any dev scene a clip must be to count as foreign.
DIRECTIONS, SLACK = 16, 2.0
BATCH = 10


@torch.no_grad()
def mean_tokens(model: torch.nn.Module, world: World, number: int) -> NDArray[np.float64]:
    """[number, D] mean token of fresh scenes of a world, most of them as files show them."""
    means, rng = [], np.random.default_rng(0)
    for start in range(0, number, BATCH):
        frames = [shown(world, world.scene(), rng, grid_of(model)) for _ in range(min(BATCH, number - start))]
        tokens, _, _ = see(model, torch.from_numpy(np.stack(frames)), train_tower=False)
        means.append(tokens.double().mean(1).numpy())
    return np.concatenate(means)


def learn(folder: Path, scenes: int, dev_scenes: int) -> Domain:
    """The domain of a checkpoint folder, written into it."""
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    domain = Domain.of(mean_tokens(model, World("train", SEED), scenes), DIRECTIONS, np.inf, CANNOT_TELL)
    own = [domain.distance(mean[None]) for mean in mean_tokens(model, World("dev", 0), dev_scenes)]
    found = Domain(domain.mean, domain.directions, domain.residual, SLACK * max(own), domain.answer)
    write_whole(folder / "domain.npz", found.to_bytes())
    return found


def main() -> None:
    """Parse arguments and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=1500, help="training scenes")
    parser.add_argument("--dev-scenes", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"limit {learn(options.folder, options.scenes, options.dev_scenes).limit:.2f}")


if __name__ == "__main__":
    main()
