"""Output slots in raster order, and the sums that fill them."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.blocks.ranking import compact, prefix_count

__all__ = ["folded", "merge_into_rows", "raster_slots"]


def raster_slots(kept: Tensor, target: Tensor | None, budget: int) -> tuple[Tensor, Tensor]:
    """Slots of the kept tokens, and of those folded into them.

    Args:
        kept: [T, N] bool, `budget` of them.
        target: [T, N] int32 raster index of the kept token that another one folds into, −1 for none; not read at
            kept tokens. None where nothing is folded.
        budget: B.

    Returns:
        positions [B] int32, ascending; assignment [T, N] int32, −1 for a dropped token.
    """
    flat = kept.reshape(-1)
    slot = torch.where(flat, prefix_count(flat) - 1, -1.0).to(torch.int32)
    if target is not None:
        into = target.reshape(-1)
        slot = torch.where(flat | (into < 0), slot, slot.index_select(0, into.clamp_min(0)))
    return compact(flat, budget), slot.reshape(kept.shape)


def folded(x: Tensor, assignment: Tensor, weight: Tensor, budget: int) -> Tensor:
    """Weighted sums [B, D] of x [T, N, D] over the tokens of each slot.

    Args:
        x: [T, N, D] tokens.
        assignment: [T, N] int32 slot, −1 for none.
        weight: [T, N] float32.
        budget: B.
    """
    slot = torch.arange(budget, dtype=torch.int32, device=x.device)[:, None]
    rows = torch.where(assignment.reshape(1, -1) == slot, weight.reshape(1, -1).to(x.dtype), 0.0)
    return rows @ x.reshape(-1, x.shape[-1])


def merge_into_rows(x: Tensor, positions: Tensor, merge: Tensor, merged: Tensor) -> Tensor:
    """Tokens as they are, some of them replaced by merged ones.

    Args:
        x: [T, N, D] tokens.
        positions: [B] int32 raster indices.
        merge: [A, T·N] weights of the merged tokens, in the order of their slots.
        merged: [B] bool, the A slots they go to.

    Returns:
        [B, D].
    """
    flat = x.reshape(-1, x.shape[-1])
    row = (prefix_count(merged) - 1).clamp_min(0).to(torch.int32)
    sums = (merge.to(x.dtype) @ flat).index_select(0, row)
    return torch.where(merged[:, None], sums, flat.index_select(0, positions))
