"""ATS: the most attended tokens of each frame, with InfoMerge's penalty on static positions already taken."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.blocks.ranking import stable_rank
from edgevtc.compressors.blocks.segments import Segments

__all__ = ["penalized_salient_tokens", "saliency_deviation", "salient_tokens"]

#: Stands for "no saliency known"; lower than any penalised value.
UNKNOWN = -6e4


def salient_tokens(saliency: Tensor, per_frame: int) -> Tensor:
    """[T, N] bool: the `per_frame` largest of each row of saliency [T, N], ties to the lower index (FastVID, 3.3)."""
    return stable_rank(saliency) < per_frame


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
    per_frame: int,
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
        per_frame: Tokens to pick in each frame.
        segments: The partition of the T frames.
        static: [T, N] bool static positions, the same on all frames of a segment.
        penalty: λ.
        unbiased: Divide the variance by N−1, else by N.

    Returns:
        salient [T, N] bool, `per_frame` of them in each frame; taken [T, N] bool, static positions that were
        picked in this frame or an earlier one of its segment.
    """
    saliency = saliency.clamp(UNKNOWN, -UNKNOWN)
    drop = penalty * saliency_deviation(saliency, unbiased)
    fixed = static.to(torch.float32)
    carried = 1 - segments.start
    held = torch.zeros_like(fixed[0])
    salient, taken = [], []
    for t in range(saliency.shape[0]):
        held = held * carried[t]
        picked = salient_tokens(saliency[t] - drop[t] * held, per_frame)
        held = torch.maximum(held, picked.to(torch.float32) * fixed[t])
        salient.append(picked)
        taken.append(held > 0)
    return torch.stack(salient), torch.stack(taken)
