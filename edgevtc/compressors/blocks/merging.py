"""Weighted sums over clusters without a reducing scatter, which engines do not have."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from edgevtc.compressors.blocks.ranking import histogram

__all__ = ["cluster_sums", "merge_weights"]


def merge_weights(label: Tensor, centre_weight: float | None) -> Tensor:
    """Weight of each token in its cluster's merged token; the weights of a cluster sum to 1.

    Args:
        label: [G, N] int32 index of the centre, −1 for none; a centre's is its own.
        centre_weight: β of the centre, the others share 1−β; None for the plain mean. A centre alone has 1.

    Returns:
        [G, N] float32, 0 where there is no cluster.
    """
    size = label.shape[-1]
    token = torch.arange(size, dtype=torch.int32, device=label.device)
    count = histogram(label, size).to(torch.float32).gather(-1, label.clamp_min(0).to(torch.int64))
    share = 1 / count.clamp_min(1) if centre_weight is None else (1 - centre_weight) / (count - 1).clamp_min(1)
    if centre_weight is not None:
        share = torch.where(label == token, torch.where(count > 1, centre_weight, 1.0), share)
    return torch.where(label >= 0, share, 0.0)


def cluster_sums(x: Tensor, label: Tensor, weight: Tensor, group: Tensor, cluster: Tensor) -> Tensor:
    """Weighted sums over clusters: Σ weight·x over the tokens of a group that carry a label.

    A product with one-hot rows would cost N² multiplications a channel. Sorted by label, though, the rows are
    a staircase: a tile of w ≈ √(N/2) tokens touches at most w labels, so each tile is summed by a w×w product, and
    a cluster that runs on over further tiles adds the first sums of those.

    Args:
        x: [G, N, D] tokens, N ≤ 3840.
        label: [G, N] int32 label of a token, below N; −1 for none. What the tokens without one hold, is not read,
            be it NaN, in a group where another token has one.
        weight: [G, N] float32.
        group: [B] int32 group of each sum wanted.
        cluster: [B] int32 its label. What comes out for a label that no token of the group has, is undefined.

    Returns:
        [B, D] in the dtype of x.
    """
    groups, size, dim = x.shape
    width = max(2, math.isqrt(size // 2))
    tiles = -(-size // width)
    spare = tiles * width - size

    token = torch.arange(size, dtype=torch.float32, device=x.device)
    count = histogram(label, size).to(torch.float32)
    label = torch.where(label < 0, size, label).to(torch.float32)
    order = torch.topk(-(label * size + token), size).indices
    ordered_weight = functional.pad(weight.gather(1, order), (0, spare)).reshape(groups, tiles, width)
    ordered = functional.pad(label.gather(1, order), (0, spare), value=float(size))
    # A weight of zero does not silence a NaN; the first in order stands in for those without a label.
    padded = torch.cat([order, order[:, :spare]], 1) if spare else order
    order = torch.where(ordered < size, padded, order[:, :1])
    row = (torch.arange(groups, device=x.device)[:, None] * size + order).reshape(-1)
    ordered = ordered.reshape(groups, tiles, width)

    # The n-th label within its tile.
    is_next = functional.pad((ordered[..., 1:] != ordered[..., :-1]).to(torch.float32), (1, 0))
    step = is_next @ torch.ones(width, width, device=x.device).triu()
    step_index = torch.arange(width, dtype=torch.float32, device=x.device)
    summing = (step[..., None, :] == step_index[:, None]).to(torch.float32) * ordered_weight[..., None, :]
    tokens = x.reshape(groups * size, dim).index_select(0, row).reshape(groups, tiles, width, dim)
    sums = summing.to(x.dtype) @ tokens

    head, tail = ordered[..., 0], ordered[..., -1]
    later = torch.ones(tiles, tiles, dtype=torch.bool, device=x.device).triu(1)
    runs_on = ((head[:, None, :] == tail[:, :, None]) & later).to(x.dtype) @ sums[:, :, 0]

    # A cluster begins after the tokens of lower label.
    before = (count @ torch.ones(size, size, device=x.device).triu(1)).to(torch.int32)
    begin = before.reshape(-1).index_select(0, group * size + cluster)
    tile = group * tiles + torch.div(begin, width, rounding_mode="floor")
    first = sums.reshape(-1, dim).index_select(
        0, tile * width + step.reshape(-1).to(torch.int32).index_select(0, group * tiles * width + begin)
    )
    # Nothing runs on from a group's last tile: there is the zero for a cluster that ends within its tile.
    is_last = tail.reshape(-1).index_select(0, tile) == cluster.to(torch.float32)
    return first + runs_on.reshape(-1, dim).index_select(0, torch.where(is_last, tile, group * tiles + tiles - 1))
