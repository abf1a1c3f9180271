"""DTM: density-peak anchors in every few frames of a segment, into which its other tokens are merged."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from edgevtc.compressors.blocks.frames import unit
from edgevtc.compressors.blocks.ranking import compact, one_hot, stable_rank
from edgevtc.compressors.blocks.segments import Segments

__all__ = ["anchors_per_frame", "merge_matrix", "nearest_anchors", "pick_anchors"]

#: Among which anchors a token looks for the nearest: those of its segment, or of each anchor frame separately.
MergeScope = Literal["segment", "anchor_frame"]

#: Whether an anchor is one of its own members.
MemberRule = Literal["others", "all"]

#: Below every cosine and every product of tokens.
OUT_OF_REACH = -3e38


def anchors_per_frame(budget: Tensor, segments: Segments, interval: int) -> Tensor:
    """Spread each segment's anchors over its anchor frames: the last frame and every `interval`-th before it.

    Args:
        budget: [T] float32 whole numbers, the segment's budget on each of its frames.
        segments: The partition of the T frames.
        interval: p.

    Returns:
        [T] float32 whole numbers; equal shares, the remainder to the latest anchor frames.
    """
    frame = torch.arange(segments.last.shape[0], dtype=torch.float32, device=budget.device)
    before_last = segments.last - frame
    order = torch.floor(before_last / interval)
    frames = torch.ceil(segments.length / interval)
    share = torch.floor(budget / frames)
    share = share + (order < budget - share * frames).to(torch.float32)
    return torch.where(before_last == order * interval, share, torch.zeros_like(share))


def pick_anchors(
    score: Tensor, valid: Tensor, counts: Tensor, segments: Segments, static: Tensor | None = None
) -> Tensor:
    """The `counts` tokens of highest score in each frame.

    A static position that an earlier frame of the segment has for an anchor is passed over as long as the frame
    has other valid tokens (InfoMerge's hard mask).

    Args:
        score: [T, N] float32.
        valid: [T, N] bool; other tokens come last.
        counts: [T] float32 whole numbers, at most the valid tokens of the frame.
        segments: The partition of the T frames.
        static: [T, N] bool static positions, the same on all frames of a segment; None for no mask.

    Returns:
        [T, N] bool; equal scores go to the lower index.
    """
    size = score.shape[1]
    # Levels of whole numbers instead of large negative scores, which would swallow the differences below them.
    key = stable_rank(score) + torch.where(valid, 0.0, 2.0 * size)
    if static is None:
        return _ascending_rank(key) < counts[:, None]
    rows = (key, key + size, counts[:, None], static, (segments.start < 1)[:, None])
    held = torch.zeros_like(static[:1])
    anchors = []
    for fresh, repeated, count, fixed, carried in zip(*(row.split(1) for row in rows), strict=True):
        held = held & carried
        picked = _ascending_rank(torch.where(held, repeated, fresh)) < count
        held = held | (picked & fixed)
        anchors.append(picked)
    return torch.cat(anchors)


def nearest_anchors(
    x: Tensor,
    anchors: Tensor,
    pool: Tensor,
    segments: Segments,
    total: int,
    scope: MergeScope = "segment",
    members: MemberRule = "others",
) -> tuple[Tensor, Tensor, Tensor]:
    """Which tokens each anchor absorbs: those whose most similar anchor, by cosine, it is.

    In scope `anchor_frame` (the published code of FastVID) the anchors of each frame divide the tokens of the
    segment among themselves anew, so that a token is absorbed once per anchor frame.

    Args:
        x: [T, N, D] float32 tokens.
        anchors: [T, N] bool, `total` of them.
        pool: [T, N] bool tokens that may be absorbed, anchors included.
        segments: The partition of the T frames.
        total: Number of anchors.
        scope: `segment` has each token look among all anchors of its segment.
        members: `all` lets an anchor absorb itself, and in scope `anchor_frame` also those of its own frame.

    Returns:
        index [total] int32 ascending raster indices of the anchors; nearest [T·N] int32 the most similar anchor
        in the segment of each pool token (an anchor's own is itself), −1 where there is none;
        absorbs [total, T·N] bool.
    """
    frames, size = anchors.shape
    flat = x.reshape(frames * size, -1)
    index = compact(anchors.reshape(-1), total)
    # Neither a row's own length nor what all anchors have in common changes which of them is the most similar.
    directions = unit(flat.index_select(0, index))
    similarity = (directions - directions.mean(0)) @ flat.T

    raster = torch.arange(frames * size, dtype=torch.int32, device=x.device)
    own = index[:, None] == raster
    segment = segments.index[:, None].expand(frames, size).reshape(-1)
    reach = (segment.index_select(0, index)[:, None] == segment) & pool.reshape(-1)
    is_anchor = anchors.reshape(-1)
    similarity = torch.where(own, -OUT_OF_REACH, torch.where(reach, similarity, OUT_OF_REACH))
    nearest = _first_largest(similarity, reach)
    if scope == "segment":
        absorbs = nearest == torch.arange(total, dtype=torch.int32, device=x.device)[:, None]
        if members == "others":
            absorbs = absorbs & ~is_anchor
        return index, nearest, absorbs

    frame_of = torch.div(index, size, rounding_mode="floor")
    absorbs = torch.zeros_like(reach)
    slot = torch.arange(total, dtype=torch.int32, device=x.device)[:, None]
    for t in range(frames):
        here = (frame_of == t)[:, None]
        candidates = reach & here
        if members == "others":
            in_frame = (raster >= t * size) & (raster < (t + 1) * size)
            candidates = candidates & ~(is_anchor & in_frame)
        best = _first_largest(torch.where(candidates, similarity, OUT_OF_REACH), candidates)
        absorbs = absorbs | (best == slot)
    return index, nearest, absorbs


def merge_matrix(index: Tensor, absorbs: Tensor, weight: float, adaptive: bool) -> Tensor:
    """Rows that turn T·N tokens into merged anchors: μ·anchor + (1−μ)·mean of what it absorbs.

    Args:
        index: [B] int32 raster indices of the anchors.
        absorbs: [B, T·N] bool.
        weight: μ (InfoMerge, eq. 34).
        adaptive: Use max(μ, 1/(n+1)) for an anchor that absorbs n tokens (FastVID's code) instead of μ.

    Returns:
        [B, T·N] float32, rows sum to 1; an anchor that absorbs nothing stays as it is.
    """
    count = absorbs.sum(1, dtype=torch.float32)
    own = (1 / (count + 1)).clamp_min(weight) if adaptive else torch.full_like(count, weight)
    own = torch.where(count > 0, own, torch.ones_like(own))
    share = (1 - own) / count.clamp_min(1)
    return absorbs.to(torch.float32) * share[:, None] + one_hot(index, absorbs.shape[1]) * own[:, None]


def _ascending_rank(key: Tensor) -> Tensor:
    """[..., N] float32 rank of keys [..., N] that are all different."""
    return (key[..., None, :] < key[..., :, None]).sum(-1, dtype=torch.float32)


def _first_largest(values: Tensor, allowed: Tensor) -> Tensor:
    """[M] int32 row of the largest of each column of values [B, M]; −1 where no row is allowed.

    Reversed numbers make a plain maximum prefer the lower row, where ArgMax leaves ties open.
    """
    rows = values.shape[0]
    reversed_row = torch.arange(rows, 0, -1, dtype=torch.float32, device=values.device)[:, None]
    hit = allowed & (values >= values.amax(0, keepdim=True))
    found = torch.where(hit, reversed_row, torch.zeros_like(values)).amax(0)
    return torch.where(found > 0, rows - found, torch.full_like(found, -1.0)).to(torch.int32)
