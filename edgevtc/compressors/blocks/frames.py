"""What each frame does for itself, in counts that are known when the program is built."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

__all__ = [
    "SHORTEST",
    "change_since",
    "even_shares",
    "even_steps",
    "folded_by_frame",
    "frame_products",
    "reference_cosine",
    "squared_lengths",
    "unit",
    "without_direction",
]

#: A smaller distance of a cosine from 1 is float32 noise and counts as none.
NOISE = 1e-12

#: A shorter token has no direction.
SHORTEST = 1e-6


def even_shares(total: int, frames: int) -> list[int]:
    """Whole shares of `total` for each frame that differ by one at most, the larger ones spread over time."""
    return [(t + 1) * total // frames - t * total // frames for t in range(frames)]


def even_steps(size: int, count: int, start: float = 0.5) -> list[int]:
    """`count` of the indices below `size` at even steps, `start` steps from the first; ascending."""
    return [int((i + start) * size / count) for i in range(count)]


def unit(x: Tensor) -> Tensor:
    """Rows of x [..., D] in float32 divided by their length; rows shorter than 1e-6 shrink towards zero."""
    x = x.to(torch.float32)
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(SHORTEST)


def without_direction(directions: Tensor) -> Tensor:
    """[...] bool, whether a row of `unit` [..., D] was too short to be made one: its cosine with all counts as 0."""
    return torch.linalg.vector_norm(directions, dim=-1) < 0.999


def frame_products(x: Tensor) -> Tensor:
    """[N, T·T] products of the tokens that a position of x [T, N, D] has in each two frames."""
    # All T² products of a position cost less than the passes over x that one product a frame would take.
    return (x.transpose(0, 1) @ x.permute(1, 2, 0)).flatten(1)


def squared_lengths(products: Tensor, frames: int) -> Tensor:
    """[N, T] squared lengths of the tokens, from their `frame_products`."""
    return products[:, :: frames + 1]


def reference_cosine(products: Tensor, reference: Sequence[int]) -> Tensor:
    """Cosine of each token with the one at its place in another frame.

    Args:
        products: [N, T·T] float32 as from :func:`frame_products`; a token of length below 1e-6 has cosine 0 with all.
        reference: The other frame of each of the T frames.

    Returns:
        [T, N] float32.
    """
    frames = len(reference)
    lengths = squared_lengths(products, frames).sqrt().clamp_min(SHORTEST)
    other = torch.tensor(reference, dtype=torch.int32, device=products.device)
    pair = torch.tensor([t * frames + r for t, r in enumerate(reference)], dtype=torch.int32, device=products.device)
    return (products.index_select(1, pair) / (lengths * lengths.index_select(1, other))).T


def change_since(x: Tensor, reference: Sequence[int]) -> Tensor:
    """[T, N] float32 1 − cosine, from 0 to 2, of each token of x [T, N, D] with the one of its reference frame.

    As half the square of the directions' difference, for a cosine near 1 has no digits left.
    """
    directions = unit(x)
    none = without_direction(directions)
    other = torch.tensor(reference, dtype=torch.int32, device=x.device)
    change = torch.linalg.vector_norm(directions - directions.index_select(0, other), dim=-1).square() / 2
    # Exactly 1 and 0, so that they tie.
    change = torch.where(none | none.index_select(0, other), 1.0, change)
    return torch.where(change > NOISE, change, 0.0)


def folded_by_frame(x: Tensor, assignment: Tensor, weight: Tensor, shares: Sequence[int]) -> Tensor:
    """Weighted sums over the tokens of each slot, where each frame fills slots of its own.

    Args:
        x: [T, N, D] tokens.
        assignment: [T, N] int32 slot, −1 for none; the slots of a frame follow those of the frames before.
        weight: [T, N] float32.
        shares: Slots of each frame; they sum to B.

    Returns:
        [B, D] in the dtype of x.
    """
    frames, dim = x.shape[0], x.shape[-1]
    width, begin = max(shares), [0, *accumulate(shares)]
    slot = torch.arange(width, dtype=torch.int32, device=x.device)
    slot = torch.tensor(begin[:-1], dtype=torch.int32, device=x.device)[:, None] + slot
    rows = torch.where(assignment[:, None, :] == slot[..., None], weight[:, None, :], 0.0).to(x.dtype)
    sums = (rows @ x).reshape(frames * width, dim)
    if min(shares) == width:
        return sums
    used = [t * width + i for t, share in enumerate(shares) for i in range(share)]
    return sums.index_select(0, torch.tensor(used, dtype=torch.int32, device=x.device))
