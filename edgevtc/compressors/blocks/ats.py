"""ATS: the most attended tokens of each frame, with InfoMerge's penalty on static positions already taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from edgevtc.compressors.blocks.frames import even_steps
from edgevtc.compressors.blocks.ranking import stable_rank
from edgevtc.compressors.blocks.segments import Segments

__all__ = [
    "one_in_some_frames",
    "penalized_salient_tokens",
    "saliency_deviation",
    "salient_tokens",
    "shares_rounded_up",
]

#: Keeps a product such as 0.7·10 from exceeding the whole number it means.
ROUNDING = 1e-9

#: Stands for "no saliency known", and what it counts as in a choice.
UNKNOWN = -6e4
LOWEST = -3e38


def one_in_some_frames(count: int, frames: int) -> list[int]:
    """[T] shares: one salient token in each of `count` frames at even steps over the clip, none in the others."""
    chosen = even_steps(frames, count)
    return [int(frame in chosen) for frame in range(frames)]


def shares_rounded_up(part: float, budget: int, frames: int) -> list[int]:
    """[T] salient tokens of each frame that are a part of the budget: ⌈part·B/T⌉, at most ⌊B/T⌋.

    Where B < T, that would be none: there ⌈part·B⌉ frames have one.
    """
    if budget < frames:
        return one_in_some_frames(math.ceil(part * budget - ROUNDING), frames)
    return [min(math.ceil(part * budget / frames - ROUNDING), budget // frames)] * frames


def salient_tokens(saliency: Tensor, shares: Sequence[int]) -> Tensor:
    """[T, N] bool: of each row of saliency [T, N] the `shares` [T] largest, ties to the lower index (FastVID, 3.3)."""
    return stable_rank(saliency) < torch.tensor(shares, dtype=torch.float32, device=saliency.device)[:, None]


def saliency_deviation(saliency: Tensor, unbiased: bool = True) -> Tensor:
    """[T] float32 standard deviation of each frame's known saliency [T, N], at least 1e-6."""
    known = saliency > UNKNOWN
    count = known.sum(-1, dtype=torch.float32)
    zero = torch.zeros_like(saliency)
    mean = torch.where(known, saliency, zero).sum(-1) / count.clamp_min(1)
    squares = torch.where(known, saliency - mean[:, None], zero).square().sum(-1)
    return (squares / (count - int(unbiased)).clamp_min(1)).sqrt().clamp_min(1e-6)


def penalized_salient_tokens(
    saliency: Tensor,
    shares: Sequence[int],
    segments: Segments,
    static: Tensor,
    penalty: float,
    unbiased: bool = True,
) -> tuple[Tensor, Tensor]:
    """Salient tokens, frame after frame, so that a segment does not pick the same static position twice.

    A static position that an earlier frame of the segment picked loses `penalty` standard deviations of its
    frame's saliency (InfoMerge, section 3.4).

    Args:
        saliency: [T, N] float32; :data:`UNKNOWN` where damaged.
        shares: [T] tokens to pick in each frame.
        segments: The partition of the T frames.
        static: [T, N] bool static positions, the same on all frames of a segment.
        penalty: λ.
        unbiased: Divide the variance by N−1, else by N.

    Returns:
        salient [T, N] bool, `shares` of them in each frame; taken [T, N] bool, static positions that were
        picked in this frame or an earlier one of its segment.
    """
    frames, size = saliency.shape
    saliency = saliency.clamp(UNKNOWN, -UNKNOWN)
    dropped = saliency - penalty * saliency_deviation(saliency, unbiased)[:, None]
    # A token has one of two values, so all of a frame's are ranked at once and a step only compares whole numbers.
    # Unknown ones stay below every penalised value.
    both = torch.where((saliency > UNKNOWN)[..., None], torch.stack([saliency, dropped], -1), LOWEST)
    keys = -stable_rank(both.reshape(frames, 2 * size)).reshape(frames, size, 2)
    steps = zip(
        keys[..., 0].split(1),
        keys[..., 1].split(1),
        static.split(1),
        (segments.start < 1)[:, None].split(1),
        shares,
        strict=True,
    )
    nothing = torch.zeros_like(static[:1])
    held, salient, taken = nothing, [], []
    for fresh, repeated, fixed, carried, share in steps:
        held, picked = held & carried, nothing
        if share:
            key = torch.where(held, repeated, fresh)
            picked = key >= torch.topk(key, share).values.amin(-1, keepdim=True)
            held = held | (picked & fixed)
        salient.append(picked)
        taken.append(held)
    return torch.cat(salient), torch.cat(taken)
