"""Ranks, selections and histograms without sorting: every tie goes to the lower index, on every back end.

TensorRT limits TopK to k ≤ 3840 and leaves the order of equal keys open; it has no sort, NonZero or CumSum of use.
So ranks come from comparisons, TopK only sees unique keys (or only its values are used), and prefix sums are
products with triangular matrices of ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "MAX_TOPK",
    "compact",
    "compact_by_priority",
    "histogram",
    "kth_largest",
    "largest_of_row",
    "one_hot",
    "precedes",
    "prefix_count",
    "stable_rank",
    "top_mask",
]

#: Largest k a TensorRT TopK layer takes.
MAX_TOPK = 3840

#: Row length in which a long vector is prefix-summed.
BLOCK = 64


def precedes(values: Tensor, descending: bool = True) -> Tensor:
    """[..., N, N] bool: entry (i, j) says that j comes before i, by value [..., N] and then by lower index."""
    mine, other = values[..., :, None], values[..., None, :]
    index = torch.arange(values.shape[-1], device=values.device)
    tie = (mine == other) & (index[None, :] < index[:, None])
    return tie | ((other > mine) if descending else (other < mine))


def stable_rank(values: Tensor, descending: bool = True) -> Tensor:
    """Rank along the last axis by comparing all pairs: O(N²), so for the tokens of a frame, not of a clip.

    Args:
        values: [..., N] finite numbers.
        descending: Rank 0 is the largest value, else the smallest.

    Returns:
        [..., N] float32 ranks 0 … N−1, each once; equal values rank by lower index.
    """
    return precedes(values, descending).sum(-1, dtype=torch.float32)


def largest_of_row(values: Tensor, counts: Tensor) -> Tensor:
    """[R, N] bool: the counts [R] largest of each row of values [R, N], finite; equal ones by lower index.

    Cheaper than ranks where the counts are known: only values are sorted, N ≤ 3840.
    """
    size = values.shape[1]
    ordered = torch.topk(values, size).values
    threshold = ordered.gather(1, (counts - 1).clamp(0, size - 1).to(torch.int64)[:, None])
    above, tied = values > threshold, values == threshold
    still_free = counts - above.sum(1, dtype=torch.float32)
    tied_so_far = tied.to(torch.float32) @ torch.ones(size, size, device=values.device).triu()
    return above | (tied & (tied_so_far <= still_free[:, None]))


def one_hot(index: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[..., size] one-hot rows of integer indices [...]; a row is zero where its index is out of range."""
    return (index[..., None] == torch.arange(size, dtype=index.dtype, device=index.device)).to(dtype)


def prefix_count(mask: Tensor) -> Tensor:
    """[M] float32 number of true entries of mask [M] up to and including each one."""
    size = mask.shape[0]
    rows = -(-size // BLOCK)
    grid = functional.pad(mask.to(torch.float32), (0, rows * BLOCK - size)).reshape(rows, BLOCK)
    within = grid @ torch.ones(BLOCK, BLOCK, device=mask.device).triu()
    before = torch.ones(rows, rows, device=mask.device).tril(-1) @ grid.sum(1, keepdim=True)
    return (within + before).reshape(-1)[:size]


def compact(mask: Tensor, budget: int) -> Tensor:
    """Ascending indices of the true entries.

    Args:
        mask: [M] bool with exactly `budget` true entries, M < 2²⁴.
        budget: B.

    Returns:
        [B] int32.
    """
    size = mask.shape[0]
    if budget <= MAX_TOPK:
        index = torch.arange(size, dtype=torch.float32, device=mask.device)
        keys = torch.where(mask, size - index, -1 - index)
        return torch.topk(keys, budget).indices.to(torch.int32)
    chosen, rest = prefix_count(mask) - 1, prefix_count(~mask) - 1
    slot = torch.where(mask, chosen, budget + rest).to(torch.int64)
    index = torch.arange(size, dtype=torch.int32, device=mask.device)
    return torch.zeros_like(index).scatter(0, slot, index)[:budget]


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest (from 1) of values [M], 0-d and exact; takes ⌈min(k, M−k+1)/3840⌉ TopK rounds."""
    size = values.shape[0]
    if k > size - k + 1:
        return -kth_largest(-values, size - k + 1)
    lowest = torch.full_like(values, torch.finfo(values.dtype).min)
    width = min(k, MAX_TOPK)
    threshold = torch.topk(values, width).values[-1]
    for _ in range(math.ceil(k / MAX_TOPK) - 1):
        # Everything down to the last threshold is out, ties included; if that was enough already, keep it.
        above = values >= threshold
        passed = above.sum(dtype=torch.int64)
        top = torch.topk(torch.where(above, lowest, values), width).values
        following = top.index_select(0, (k - 1 - passed).clamp(0, width - 1).reshape(1)).reshape(())
        threshold = torch.where(passed < k, following, threshold)
    return threshold


def top_mask(priority: Tensor, budget: int) -> Tensor:
    """[M] bool: the `budget` largest priorities [M] (finite), equal ones by lower index; always exactly that many."""
    threshold = kth_largest(priority, budget)
    above, tied = priority > threshold, priority == threshold
    still_free = budget - above.sum(dtype=torch.float32)
    return above | (tied & (prefix_count(tied) <= still_free))


def compact_by_priority(priority: Tensor, budget: int) -> Tensor:
    """Ascending indices of the `budget` largest priorities; equal ones by lower index.

    Args:
        priority: [M] float32, finite. Tiers are made by choosing values that no other tier reaches.
        budget: B, from 1 to M.

    Returns:
        [B] int32, always exactly B of them.
    """
    return compact(top_mask(priority, budget), budget)


def histogram(index: Tensor, size: int) -> Tensor:
    """How often each of 0 … size−1 occurs along the last axis.

    Two short one-hot codes, of the index's quotient and remainder, multiply to the table: 2·M·√size comparisons
    instead of M·size.

    Args:
        index: [..., M] int32; entries that are negative are not counted.
        size: Length of the table.

    Returns:
        [..., size] int32.
    """
    radix = math.isqrt(size - 1) + 1
    digit = torch.arange(radix, dtype=index.dtype, device=index.device)[:, None]
    quotient = torch.div(index, radix, rounding_mode="floor")[..., None, :]
    high = (quotient == digit[: -(-size // radix)]).to(torch.float32)
    low = (index[..., None, :] - quotient * radix == digit).to(torch.float32)
    return (high @ low.transpose(-1, -2)).flatten(-2)[..., :size].to(torch.int32)
