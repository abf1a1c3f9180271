"""DySeg: segments of a video from the similarity of neighbouring frames (FastVID, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.blocks.frames import change_since
from edgevtc.compressors.blocks.ranking import stable_rank
from edgevtc.compressors.blocks.segments import Segments, segments_from_cuts

__all__ = ["dyseg", "neighbour_change"]


def neighbour_change(frame_features: Tensor) -> Tensor:
    """[T−1] float32 1 − cosine of each frame's descriptor [T, Dg] with the next one's; 1 where one of them is zero."""
    frames = frame_features.shape[0]
    return change_since(frame_features[:, None], [0, *range(frames - 1)])[1:, 0]


def dyseg(frame_features: Tensor, min_segments: int, threshold: float) -> Segments:
    """Cut after the `min_segments` − 1 least similar neighbours, and wherever the similarity is below a threshold.

    Args:
        frame_features: [T, Dg] frame descriptors of any scale.
        min_segments: c; a clip of fewer frames is cut after each.
        threshold: τ; a cosine strictly below it is a cut.

    Returns:
        The segments; equal similarities are cut at the lower frame first.
    """
    if frame_features.shape[0] == 1:
        return segments_from_cuts(torch.zeros(0, device=frame_features.device))
    change = neighbour_change(frame_features)
    largest = stable_rank(change) < min_segments - 1
    return segments_from_cuts(largest | (change > 1 - threshold))
