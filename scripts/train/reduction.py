"""Token reductions for compression-aware training: tokens [B, N, D] → (tokens, original slots, which are real).

Random drop and temporal merging are trained on; selections by saliency and by whole frames are never, so that they
stay a fair test.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Reduced = tuple[Tensor, Tensor, Tensor]


def keep(tokens: Tensor, index: Tensor) -> Reduced:
    """The tokens at the indices [B, k], in order of time."""
    index = index.sort(1).values
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2])), index, torch.ones_like(index).bool()


def random_drop(tokens: Tensor, number: int) -> Reduced:
    """Any `number` of the tokens."""
    return keep(tokens, torch.rand(tokens.shape[:2], device=tokens.device).topk(number, 1).indices)


def novelty(tokens: Tensor, frames: int) -> Tensor:
    """1 − cosine to the same cell one frame before (in the first frame: to the frame's mean) [B, N]."""
    unit = F.normalize(tokens, dim=-1).unflatten(1, (frames, -1))
    mean = F.normalize(unit[:, 0].mean(1, keepdim=True), dim=-1)
    first = 1 - (unit[:, 0] * mean).sum(-1)
    rest = 1 - (unit[:, 1:] * unit[:, :-1]).sum(-1)
    return torch.cat([first[:, None], rest], 1).flatten(1)


def temporal_merge(
    tokens: Tensor, frames: int, number: int | None = None, threshold: float | None = None, *, mean: bool = True
) -> Reduced:
    """Runs of one cell through time become one token, at the slot of the run's first.

    The `number` most novel tokens begin runs; or a run ends where the cosine to its first falls below `threshold`.
    `mean` averages the run, else its first token stands for it.
    """
    batch, total, width = tokens.shape
    starts = torch.zeros(batch, total, dtype=torch.bool, device=tokens.device)
    if number is not None:
        starts.scatter_(1, novelty(tokens, frames).topk(number, 1).indices, True)
        starts = starts.unflatten(1, (frames, -1))
    else:
        unit = F.normalize(tokens, dim=-1).unflatten(1, (frames, -1))
        starts = starts.unflatten(1, (frames, -1))
        starts[:, 0], anchor = True, unit[:, 0]
        for t in range(1, frames):
            starts[:, t] = (unit[:, t] * anchor).sum(-1) <= threshold
            anchor = torch.where(starts[:, t, :, None], unit[:, t], anchor)
    merged = tokens
    if mean:
        run = starts.long().cumsum(1)[..., None].expand(-1, -1, -1, width)
        size = (batch, frames + 1, total // frames, width)
        total_of = torch.zeros(size, device=tokens.device).scatter_add(1, run, tokens.reshape(run.shape).float())
        count_of = torch.zeros(size, device=tokens.device).scatter_add(1, run, torch.ones_like(total_of)[:, :frames])
        merged = (total_of / count_of.clamp(min=1)).gather(1, run).reshape(tokens.shape).to(tokens.dtype)
    flat = starts.flatten(1)
    order = torch.where(flat, torch.arange(total, device=tokens.device), total).sort(1).values
    order = order[:, : int(flat.sum(1).max())]
    valid, order = order < total, order.clamp(max=total - 1)
    merged = merged.gather(1, order[..., None].expand(-1, -1, width))
    return merged, torch.where(valid, order, 0), valid


def random_training_reduction(tokens: Tensor, frames: int, rng: np.random.Generator) -> Reduced:
    """A random reduction of a random strength of the tokens of so many frames, from those that training may use."""
    number, draw = tokens.shape[1], rng.random()
    if draw < 0.4:
        return random_drop(tokens, int(number * 2 ** rng.uniform(-2.5, -0.15)))
    if draw < 0.75:
        return temporal_merge(tokens, frames, int(number * 2 ** rng.uniform(-5, -0.5)), mean=bool(rng.random() < 0.5))
    return temporal_merge(tokens, frames, threshold=float(rng.uniform(0.7, 0.97)))
