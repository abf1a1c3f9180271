"""Runs of consecutive frames as matrices: a loop over segments becomes a product with a T×T matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Segments", "segments_from_cuts", "segments_from_start"]


@dataclass(frozen=True)
class Segments:
    """A partition of T frames into runs; each quantity of a segment is repeated on its frames.

    Attributes:
        start: [T] float32, 1 at the first frame of a segment.
        index: [T] float32 number of the segment, from 0.
        same: [T, T] float32, 1 where two frames share a segment.
        length: [T] float32 frames in the segment.
        first: [T] float32 first frame of the segment.
        last: [T] float32 last frame of the segment.
        end: [T] float32, 1 at the last frame of a segment.
    """

    start: Tensor
    index: Tensor
    same: Tensor
    length: Tensor
    first: Tensor
    last: Tensor
    end: Tensor

    @property
    def count(self) -> Tensor:
        """Number of segments, 0-d float32."""
        return self.start.sum()

    @property
    def number(self) -> Tensor:
        """[T] int32 number of the segment, as a plan gives it."""
        return self.index.to(torch.int32)

    def segment_sum(self, x: Tensor) -> Tensor:
        """Sum of x [T, ...] over each frame's segment, [T, ...]."""
        return (self.same.to(x.dtype) @ x.reshape(x.shape[0], -1)).reshape(x.shape)

    def segment_mean(self, x: Tensor) -> Tensor:
        """Mean of x [T, ...] over each frame's segment, [T, ...]."""
        return (self.mean_weights().to(x.dtype) @ x.reshape(x.shape[0], -1)).reshape(x.shape)

    def mean_weights(self) -> Tensor:
        """[T, T] float32 matrix that averages over each frame's segment."""
        return self.same / self.length[:, None]


def segments_from_start(start: Tensor) -> Segments:
    """Segments from start [T] (float or bool), whose first entry must be 1."""
    start = start.to(torch.float32)
    frames = start.shape[0]
    frame = torch.arange(frames, dtype=torch.float32, device=start.device)
    index = torch.ones(frames, frames, device=start.device).tril() @ start - 1
    same = (index[:, None] == index[None, :]).to(torch.float32)
    length = same.sum(1)
    first = frame - same.tril(-1).sum(1)
    last = first + length - 1
    return Segments(start, index, same, length, first, last, (frame == last).to(torch.float32))


def segments_from_cuts(cuts: Tensor) -> Segments:
    """Segments from cuts [T−1] (float or bool): entry t separates frame t from frame t+1."""
    start = torch.ones(1, dtype=torch.float32, device=cuts.device)
    # An empty tensor must not reach the graph: back ends refuse zero-sized dimensions.
    return segments_from_start(torch.cat([start, cuts.to(torch.float32)]) if cuts.shape[0] else start)
