"""Average the weights of checkpoints of one model: of sittings that went on from one another, the mean is often better.

    python scripts/train/average.py runs/fifth runs/sixth runs/seventh -o runs/mean
    python scripts/train/average.py runs/fifth runs/sixth --weights 1 3 -o runs/mean

Weights that are far apart in training have no mean worth asking: hold the result to dev videos with evaluate.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from heads import Heads
from network import build, grid_of, load_heads, save_folder
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration


def average(folders: Sequence[Path], weights: Sequence[float], out: Path) -> None:
    """Write a checkpoint folder with the weighted mean of all weights, auxiliary heads included.

    Raises:
        ValueError: Folders of different grids, or one that is no checkpoint folder or has no auxiliary heads.
    """
    for path in folders:
        if not (path / "training.json").is_file():
            raise ValueError(f"{path} is no checkpoint folder of run.py: it has no training.json")
    shares = torch.tensor(weights, dtype=torch.float64)
    shares = (shares / shares.sum()).tolist()
    models = [LlavaOnevisionForConditionalGeneration.from_pretrained(path, dtype=torch.float32) for path in folders]
    heads: list[nn.Module] = [Heads() for _ in folders]
    for path, head in zip(folders, heads, strict=True):
        if not load_heads(head, path):
            raise ValueError(f"{path} has no heads.safetensors: training could not go on from the mean")
    grids = sorted({grid_of(model) for model in models})
    if len(grids) > 1:
        raise ValueError(f"the checkpoints have {grids} tokens along a frame's side: they have no mean")
    about = [json.loads((path / "training.json").read_text()) for path in folders]
    model, head = build(grid=grids[0]), Heads()
    model.load_state_dict(_mean([part.state_dict() for part in models], shares))
    head.load_state_dict(_mean([part.state_dict() for part in heads], shares))
    save_folder(model, head, out, {"stage": "mean of checkpoints", "shares": shares, "of": about})


def _mean(states: Sequence[dict[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    return {
        name: sum(share * state[name].float() for share, state in zip(shares, states, strict=True))
        for name in states[0]
    }


def main() -> None:
    """Parse arguments and average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", type=float, nargs="+", help="one for each folder (default: all the same)")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    weights = options.weights or [1.0] * len(options.folders)
    if len(weights) != len(options.folders) or min(weights) < 0 or not sum(weights):
        parser.error("--weights takes one number for each folder, none below zero and not all zero")
    try:
        average(options.folders, weights, options.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
