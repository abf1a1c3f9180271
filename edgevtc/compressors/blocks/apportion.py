"""Integer shares of a budget: the largest-remainder method with floors and caps, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.blocks.ranking import precedes, stable_rank

__all__ = ["apportion"]


def apportion(weights: Tensor, caps: Tensor, total: int | Tensor, floor: int = 0) -> Tensor:
    """Share `total` units among K groups in proportion to their weights, in whole units.

    The real-valued quota of group k is λ·weight, held between its floor and its cap, with the one λ at which the
    quotas sum to the total; units lost to rounding down go to the largest remainders (then to the larger weight,
    then to the lower index). So no group is a whole unit or more away from its quota. Room that is left once
    every positive weight is at its cap is filled in order of weight.

    Args:
        weights: [K] float32, ≥ 0. An unused group has weight 0 and cap 0.
        caps: [K] whole numbers, most units a group can take; their sum below 2²⁴.
        total: Units to share, a whole number.
        floor: Fewest units of a group (or its cap, if that is less). Where the total does not reach, the groups
            of largest weight have it.

    Returns:
        [K] float32 whole numbers, 0 ≤ share ≤ cap, with sum min(total, Σ caps).
    """
    caps = caps.to(torch.float32)
    # Weights so small that their λ would overflow count as zero.
    weights = weights / weights.max().clamp_min(1e-30)
    weights = torch.where(weights > 1e-20, weights, 0.0)
    total = torch.as_tensor(total, device=caps.device).to(torch.float32).minimum(caps.sum())
    low = caps.clamp_max(float(floor))
    if floor:
        open_weight = torch.where(caps > 0, weights, -1.0)
        low = torch.where(stable_rank(open_weight) < total, low, 0.0)
    quota = _quotas(weights, low, caps, total)

    share = torch.minimum(quota.floor(), caps)
    open_groups = (share < caps) & (weights > 0)
    remainder = torch.where(open_groups, quota - share, -1.0)
    by_remainder = _rank_by(remainder, weights)
    share = share + ((by_remainder < total - share.sum()) & open_groups).to(torch.float32)

    room = caps - share
    heavier = precedes(weights).to(torch.float32)
    return share + torch.minimum((total - share.sum() - (heavier * room[None, :]).sum(1)).clamp_min(0), room)


def _quotas(weights: Tensor, low: Tensor, caps: Tensor, total: Tensor) -> Tensor:
    """Σ clamp(λ·weight, low, cap) is piecewise linear in λ: look the total up between its breakpoints."""
    positive = weights > 0
    divisor = torch.where(positive, weights, torch.ones_like(weights))
    zero = torch.zeros_like(weights)
    slopes_change = torch.cat(
        [zero[:1], torch.where(positive, low / divisor, zero), torch.where(positive, caps / divisor, zero)]
    )
    # Expanded by hand, because ONNX's shape inference takes the broadcast product of two vectors for one of shapes.
    every = weights.expand(slopes_change.shape[0], -1)
    levels = (slopes_change[:, None] * every).maximum(low).minimum(caps)
    sums = levels.sum(1)
    below = sums <= total
    start = torch.where(below, slopes_change, torch.full_like(sums, -1.0)).max()
    stop = torch.where(below, torch.full_like(sums, torch.finfo(torch.float32).max), slopes_change).min()
    at_start = (start * weights).maximum(low).minimum(caps)
    # Beyond the last breakpoint every positive weight is at its cap.
    at_stop = torch.where(positive, stop * weights, zero).maximum(low).minimum(caps)
    step = (total - at_start.sum()) / (at_stop.sum() - at_start.sum()).clamp_min(1e-6)
    return at_start + (at_stop - at_start) * step.clamp(0, 1)


def _rank_by(first: Tensor, second: Tensor) -> Tensor:
    """Descending rank of [K] by `first`, ties by `second`, then by index."""
    mine, other = first[:, None], first[None, :]
    return ((other > mine) | ((other == mine) & precedes(second))).sum(1, dtype=torch.float32)
