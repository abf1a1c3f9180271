"""PruneVid (ACL Findings 2025), the stage before the LLM: windows of similar frames, clusters of their tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgevtc.compressors.base import Features, Plan
from edgevtc.compressors.blocks.apportion import apportion
from edgevtc.compressors.blocks.density import assign_to_centres, density_peaks, squared_distances
from edgevtc.compressors.blocks.frames import SHORTEST, frame_products, squared_lengths
from edgevtc.compressors.blocks.ranking import stable_rank
from edgevtc.compressors.blocks.segments import Segments, segments_from_cuts, segments_from_start
from edgevtc.compressors.holitom import HoliTom
from edgevtc.methods.prunevid import PRUNEVID

__all__ = ["PruneVid", "frame_clusters", "repaired_windows"]


class PruneVid(HoliTom):
    """PruneVid before the LLM (arXiv:2412.16117), to exactly B tokens.

    Its spatial stage is HoliTom's with every dynamic token contextual and plain means for clusters, so only the
    windows, the static positions and the shares are its own. The published code makes ⌊β·n⌋ clusters of a group
    of n tokens, and keeps groups of up to 14 whole; here the groups share the budget in proportion to those
    counts, by largest remainder. Where the clip has fewer distinct tokens than the budget, tokens merged over
    time are kept on their own as well, in raster order.

    Mended: the published code stops at fewer than 7 frames, and where a group has no cluster. Where no run of
    frames outlasts one, the clip is one window.
    """

    spec = PRUNEVID
    neighbours_within_clusters = False

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        self.config |= {"context_share": 1.0, "merge": "mean", "order": "raster"}

    def plan(self, features: Features) -> Plan:
        # Saliency decides only which merged tokens come back into a large budget.
        return super().plan(Features(features.frame_tokens, torch.zeros_like(features.frame_tokens[..., 0])))

    def segment(self, x: Tensor) -> tuple[Segments, Tensor]:
        """The windows of x [T, N, D] and the static positions [T, N] bool, the same on all frames of a window."""
        frames, size = x.shape[:2]
        if frames == 1:
            segments = segments_from_start(torch.ones(1, device=x.device))
            return segments, torch.zeros(1, size, dtype=torch.bool, device=x.device)
        clusters = max(1, int(frames * self.config["temporal_ratio"]))
        segments = repaired_windows(frame_clusters(x.mean(1), clusters, self.config["neighbours"]))
        products = frame_products(x)
        lengths = squared_lengths(products, frames).sqrt().clamp_min(SHORTEST)
        cosine = products.reshape(size, frames, frames) / (lengths[:, :, None] * lengths[:, None, :])
        with_own = (cosine * segments.same).sum(-1) @ segments.same
        pairs = (segments.length * (segments.length - 1)).clamp_min(1)
        mean = (with_own - segments.length) / pairs
        return segments, (mean > self.config["threshold"]).T & (segments.length > 1)[:, None]

    def share(self, segments: Segments, static: Tensor) -> tuple[Tensor, Tensor]:
        """Clusters of each window's static positions, at its first frame, and of each frame's others: twice [T]."""
        static_size = static.sum(1, dtype=torch.float32)
        sizes = torch.cat([static_size * segments.start, self.tokens_per_frame - static_size])
        published = torch.where(sizes > self.config["copied_group"], self.config["cluster_ratio"] * sizes, sizes)
        shares = apportion(published, sizes, self.budget)
        return shares[: self.num_frames], shares[self.num_frames :]


def frame_clusters(frame_mean: Tensor, clusters: int, neighbours: int) -> Tensor:
    """[T] int32 frame at the centre of each frame's cluster; DPC-KNN on frame means [T, D]."""
    distance2 = squared_distances(frame_mean)
    every = torch.ones_like(frame_mean[:, 0], dtype=torch.bool)
    _, score = density_peaks(distance2, every, neighbours)
    return assign_to_centres(distance2, stable_rank(score) < clusters, every)


def repaired_windows(label: Tensor) -> Segments:
    """Windows of a clip from the clusters of its frames, label [T] int32, T > 1.

    Each label keeps its longest runs of frames (all of equal length), unless they are single frames. What lies
    between two kept runs joins the longer one, of equals the earlier.
    """
    frames = label.shape[0]
    frame = torch.arange(frames, dtype=torch.float32, device=label.device)
    runs = segments_from_cuts(label[1:] != label[:-1])
    longest = torch.where(label[:, None] == label[None, :], runs.length[None, :], 0.0).amax(1)
    kept = (runs.length == longest) & (longest > 1)
    earlier = torch.where(kept[None, :] & (frame[None, :] <= frame[:, None]), frame[None, :], -1.0).amax(1)
    later = torch.where(kept[None, :] & (frame[None, :] >= frame[:, None]), frame[None, :], float(frames)).amin(1)

    def length_at(index: Tensor) -> Tensor:
        inside = (index >= 0) & (index < frames)
        return torch.where(inside, runs.length.index_select(0, index.clamp(0, frames - 1).to(torch.int32)), 0.0)

    joined = torch.where(length_at(earlier) >= length_at(later), earlier, later)
    new = label.index_select(0, joined.clamp(0, frames - 1).to(torch.int32))
    return segments_from_cuts((new[1:] != new[:-1]) & kept.any(0, keepdim=True))
