"""FastVID (NeurIPS 2025): dynamic segments, salient tokens, and density-peak anchors that absorb the rest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from edgevtc.compressors.base import Compressor, Features, Plan
from edgevtc.compressors.blocks.apportion import apportion
from edgevtc.compressors.blocks.ats import salient_tokens, shares_rounded_up
from edgevtc.compressors.blocks.density import density_peaks, squared_distances
from edgevtc.compressors.blocks.dtm import anchors_per_frame, merge_matrix, nearest_anchors, pick_anchors
from edgevtc.compressors.blocks.dyseg import dyseg
from edgevtc.compressors.blocks.segments import Segments
from edgevtc.compressors.blocks.slots import merge_into_rows, raster_slots
from edgevtc.methods.fastvid import FASTVID

__all__ = ["FastVID"]


class FastVID(Compressor):
    """LLaVA-OneVision's variant of FastVID (arXiv:2503.11187), to exactly B tokens.

    Each frame keeps ⌈(1−d)·B/T⌉ salient tokens (⌊B/T⌋ at most): where B = T·r, the r − ⌊d·r⌋ of the published
    code; where B < T, B − ⌊d·B⌋ frames at even steps keep one (if all anchors fit beside them). The segments share the
    other tokens in proportion to their lengths by largest remainder, and a segment's remainder goes to its latest
    anchor frames; the published code drops it. The anchors of each anchor frame divide all other tokens of the segment
    among themselves, so a token is absorbed once an anchor frame; its `assignment` is the most similar anchor of them
    all.

    Mended: the published code lets a segment's anchors absorb their own frame only where their number happens to
    equal a frame's plain share, and stops where a clip has fewer than c frames, a frame has no context share, or
    the anchor frames cannot hold the anchors; here the interval between them is lowered until they can.
    """

    spec = FASTVID

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        self.salient_shares = shares_rounded_up(1 - self.config["context_share"], budget, num_frames)
        if tokens_per_frame == 1 and budget < num_frames:
            self.salient_shares = [0] * num_frames
        self.num_anchors = budget - sum(self.salient_shares)
        self.others_per_frame = tokens_per_frame - max(self.salient_shares)
        self.anchor_interval = max(
            interval
            for interval in range(1, self.config["anchor_interval"] + 1)
            if self.num_anchors <= math.ceil(num_frames / interval) * self.others_per_frame
        )

    def plan(self, features: Features) -> Plan:
        assert features.saliency is not None and features.frame_features is not None
        x = features.frame_tokens.float()
        salient, total = self.salient(features.saliency), self.num_frames * self.tokens_per_frame
        if self.budget == total:
            return Plan(*raster_slots(torch.ones_like(salient), None, total))
        segments = dyseg(features.frame_features, self.config["min_segments"], self.config["segment_threshold"])
        if not self.num_anchors:
            return Plan(*raster_slots(salient, None, self.budget), segments=segments.number)
        caps = torch.ceil(segments.length / self.anchor_interval) * self.others_per_frame * segments.start
        shares = apportion(segments.length * segments.start, caps, self.num_anchors)
        counts = anchors_per_frame(segments.segment_sum(shares), segments, self.anchor_interval)
        return self.merge(x, salient, counts, segments)

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        if "merge" not in plan.extra:
            return x.reshape(-1, x.shape[-1]).index_select(0, plan.positions)
        return merge_into_rows(x, plan.positions, plan.extra["merge"], plan.extra["merged"])

    def salient(self, saliency: Tensor) -> Tensor:
        """[T, N] bool salient tokens of each frame."""
        return salient_tokens(saliency, self.salient_shares)

    def merge(self, x: Tensor, salient: Tensor, counts: Tensor, segments: Segments) -> Plan:
        """The plan for given salient tokens [T, N] bool and anchors of each frame [T]; x [T, N, D] float32."""
        pool, total = ~salient, self.num_anchors
        neighbours = min(self.config["neighbours"], self.others_per_frame)
        _, score = density_peaks(squared_distances(x, pool), pool, neighbours)
        anchors = pick_anchors(score, pool, counts, segments)
        index, nearest, absorbs = nearest_anchors(
            x, anchors, pool, segments, total, "anchor_frame", self.config["members"]
        )
        target = torch.where(nearest >= 0, index.index_select(0, nearest.clamp_min(0)), -1)
        kept = salient | anchors
        positions, assignment = raster_slots(kept, target, self.budget)
        extra = {
            "merge": merge_matrix(index, absorbs, self.config["merge_weight"], adaptive=True),
            "merged": anchors.reshape(-1).index_select(0, positions),
        }
        return Plan(positions, assignment, extra, segments.number)
