"""DySeg: segments of a video from the similarity of neighbouring frames (FastVID, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.blocks.frames import unit
from edgevtc.compressors.blocks.ranking import stable_rank
from edgevtc.compressors.blocks.segments import Segments, segments_from_cuts

__all__ = ["dyseg", "neighbour_similarity"]


def neighbour_similarity(frame_features: Tensor) -> Tensor:
    """[T−1] float32 cosine of each frame's descriptor [T, Dg] with the next one's; 0 where one of them is zero."""
    directions = unit(frame_features)
    return (directions[:-1] * directions[1:]).sum(-1)


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
    similarity = neighbour_similarity(frame_features)
    lowest = stable_rank(similarity, descending=False) < min_segments - 1
    return segments_from_cuts(lowest | (similarity < threshold))
