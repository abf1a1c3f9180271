"""InfoMerge (arXiv:2606.02161): DySeg, static prior (TFD), segment budgets (CABA), ATS and DTM, to exactly B tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgevtc.compressors.base import Compressor, Features, Plan
from edgevtc.compressors.blocks.apportion import apportion
from edgevtc.compressors.blocks.ats import one_in_some_frames, penalized_salient_tokens, salient_tokens
from edgevtc.compressors.blocks.density import density_peaks, direction_distances, squared_distances
from edgevtc.compressors.blocks.dtm import anchors_per_frame, merge_matrix, nearest_anchors, pick_anchors
from edgevtc.compressors.blocks.dyseg import dyseg
from edgevtc.compressors.blocks.entropy import Richness, richness
from edgevtc.compressors.blocks.frames import SHORTEST, frame_products, squared_lengths, unit
from edgevtc.compressors.blocks.ranking import compact, prefix_count, stable_rank
from edgevtc.compressors.blocks.segments import Segments
from edgevtc.methods.infomerge import INFOMERGE

__all__ = ["InfoMerge", "segment_merit", "standardize", "temporal_feature_dynamics"]

#: Keeps a product such as (1 − 0.3)·10 from falling below the whole number it means.
ROUNDING = 1e-9

#: Smaller changes of a cosine, and smaller deviations between segments, are float32 noise and count as none.
NOISE = 1e-6


class InfoMerge(Compressor):
    """Salient tokens of every frame plus merged anchors, whose budgets follow what a segment has to say.

    The budget splits into T·⌊(1−d)·B/T⌋ salient tokens and the rest for anchors; the segments share the latter by
    largest remainder, where the paper rounds. Where that is no salient token a frame, which the paper does not come
    to, ⌊(1−d)·B⌋ frames at even steps have one, as long as all anchors fit beside them. With B = T·N it is the
    identity. Where the anchor frames could not hold the anchors, the interval between them is lowered until they can.
    """

    spec = INFOMERGE

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        frames, size = num_frames, tokens_per_frame
        salient = math.floor((1 - self.config["context_share"]) * budget + ROUNDING)
        fits = budget - salient <= frames * (size - 1)
        few = one_in_some_frames(salient if salient < frames and fits else 0, frames)
        self.salient_shares = [salient // frames] * frames if salient >= frames else few
        self.num_salient = sum(self.salient_shares)
        self.num_anchors = budget - self.num_salient
        self.others_per_frame = size - max(self.salient_shares)
        self.anchor_interval = max(
            interval
            for interval in range(1, self.config["anchor_interval"] + 1)
            if self.num_anchors <= math.ceil(frames / interval) * self.others_per_frame
        )
        self.merges_original = self.config["dtm_features"] == "original"
        # Nothing repeats in a single frame.
        self.num_static = math.floor(self.config["static_share"] * size + ROUNDING) if frames > 1 else 0

    def plan(self, features: Features) -> Plan:
        frames, size = self.num_frames, self.tokens_per_frame
        x = features.frame_tokens.float()
        if self.budget == frames * size:
            every = torch.arange(self.budget, dtype=torch.int32, device=x.device)
            return Plan(every, every.reshape(frames, size))
        assert features.saliency is not None and features.frame_features is not None
        segments = dyseg(features.frame_features, self.config["min_segments"], self.config["segment_threshold"])
        static = self._static(x, segments)
        salient, taken = self._salient(features.saliency, segments, static)
        kept, extra = salient, {}
        if self.num_salient:
            extra["salient"] = compact(salient.reshape(-1), self.num_salient)
        if static is not None and taken is not None:
            extra["static"] = compact(static.reshape(-1), frames * self.num_static)
            extra["taken"] = taken.reshape(-1).index_select(0, extra["static"])
            extra["segment_mean"] = segments.mean_weights()
        nearest = torch.full((frames * size,), -1, dtype=torch.int32, device=x.device)
        if self.num_anchors:
            budgets = self._budgets(x, segments)
            tokens = x if self.merges_original else _replaced(extra, x)
            anchors, nearest, extra["merge"] = self._merge(tokens, segments, static, salient, budgets)
            kept = salient | anchors
        return self._slots(kept.reshape(-1), salient.reshape(-1), nearest, extra, segments)

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        dim = x.shape[-1]
        if self.budget == self.num_frames * self.tokens_per_frame:
            return x.reshape(self.budget, dim)
        replaced, rows = _replaced(plan.extra, x), []
        if self.num_salient:
            rows.append(replaced.reshape(-1, dim).index_select(0, plan.extra["salient"]))
        if self.num_anchors:
            tokens = x if self.merges_original else replaced
            rows.append(plan.extra["merge"].to(x.dtype) @ tokens.reshape(-1, dim))
        return torch.cat(rows).index_select(0, plan.extra["order"])

    def _static(self, x: Tensor, segments: Segments) -> Tensor | None:
        """[T, N] bool positions of least change in each segment, as many in every frame; None where ρ·N < 1.

        A segment of one frame has some, too: nothing repeats in it, and the mean over it is the token itself.
        """
        if not self.num_static:
            return None
        static = stable_rank(temporal_feature_dynamics(x, segments), descending=False) < self.num_static
        # Products may round a segment's frames apart; its positions have to be the same ones.
        return static.index_select(0, segments.first.to(torch.int32))

    def _salient(self, saliency: Tensor, segments: Segments, static: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """[T, N] bool salient tokens; [T, N] bool static positions taken so far, None where there are none."""
        if not self.num_salient:
            return torch.zeros_like(saliency, dtype=torch.bool), None
        if static is None:
            return salient_tokens(saliency, self.salient_shares), None
        return penalized_salient_tokens(
            saliency,
            self.salient_shares,
            segments,
            static,
            self.config["penalty"],
            unbiased=self.config["penalty_deviation"] == "unbiased",
        )

    def _budgets(self, x: Tensor, segments: Segments) -> Tensor:
        """[T] float32 anchors of the frame's segment."""
        config = self.config
        merit = segment_merit(
            x, segments, config["uniqueness_weight"], config["richness_weight"], mode=config["richness"]
        )
        weights = torch.sigmoid(config["temperature"] * merit) * segments.length
        caps = torch.ceil(segments.length / self.anchor_interval) * self.others_per_frame
        shares = apportion(weights * segments.start, caps * segments.start, self.num_anchors, floor=1)
        return segments.segment_sum(shares)

    def _merge(
        self, tokens: Tensor, segments: Segments, static: Tensor | None, salient: Tensor, budgets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """DTM: anchors [T, N] bool, the nearest one of each token [T·N] int32, the merge matrix [B, T·N]."""
        config, pool = self.config, ~salient
        neighbours = min(config["neighbours"], self.others_per_frame)
        _, score = density_peaks(squared_distances(tokens, pool), pool, neighbours)
        counts = anchors_per_frame(budgets, segments, self.anchor_interval)
        anchors = pick_anchors(score, pool, counts, segments, static)
        index, nearest, absorbs = nearest_anchors(
            tokens, anchors, pool, segments, self.num_anchors, config["dtm_scope"], config["dtm_members"]
        )
        merge = merge_matrix(index, absorbs, config["merge_weight"], config["merge_weighting"] == "adaptive")
        return anchors, nearest, merge

    def _slots(
        self, kept: Tensor, salient: Tensor, nearest: Tensor, extra: dict[str, Tensor], segments: Segments
    ) -> Plan:
        """Salient tokens and anchors in raster order; every other token goes where its nearest anchor went."""
        positions = compact(kept, self.budget)
        slot = (prefix_count(kept) - 1).to(torch.int32)
        assignment = torch.where(kept, slot, torch.full_like(slot, -1))
        # Where each output slot's row lies in [salient tokens; merged anchors].
        row = torch.where(salient, prefix_count(salient) - 1, self.num_salient + prefix_count(kept & ~salient) - 1)
        extra["order"] = row.to(torch.int32).index_select(0, positions)
        if self.num_anchors:
            anchor_slots = slot.index_select(0, compact(kept & ~salient, self.num_anchors))
            merged_into = anchor_slots.index_select(0, nearest.clamp_min(0))
            assignment = torch.where(~kept & (nearest >= 0), merged_into, assignment)
        return Plan(positions, assignment.reshape(self.num_frames, self.tokens_per_frame), extra, segments.number)


def _replaced(extra: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """x [T, N, D] with each static token that was picked as its position's mean over the segment (eq. 29 and 30)."""
    if "static" not in extra:
        return x
    # Few positions are static: only these are averaged, and no second clip of means is held.
    flat = x.reshape(-1, x.shape[-1])
    rows = flat.index_select(0, extra["static"])
    mean = (extra["segment_mean"].to(x.dtype) @ rows.reshape(x.shape[0], -1)).reshape(rows.shape)
    rows = torch.where(extra["taken"][:, None], mean, rows)
    return flat.index_put((extra["static"].to(torch.int64),), rows).reshape(x.shape)


def temporal_feature_dynamics(x: Tensor, segments: Segments) -> Tensor:
    """How much the similarities of a position to its own past and future change from frame to frame.

    TFD(p) = mean over neighbouring frames l, l+1 and all frames l' of the segment of |F[l+1, l'] − F[l, l']|, with
    F[l, l'] the cosine of position p in the two frames (InfoMerge, eq. 1 and 2).

    Args:
        x: [T, N, D] float32 tokens, T > 1.
        segments: The partition of the T frames.

    Returns:
        [T, N] float32, a segment's value on all of its frames; 0 for a segment of one frame.
    """
    frames, size = x.shape[:2]
    products = frame_products(x)
    norms = squared_lengths(products, frames).sqrt().clamp_min(SHORTEST)
    cosine = products.reshape(size, frames, frames) / norms[:, :, None] / norms[:, None, :]
    change = (cosine[:, 1:] - cosine[:, :-1]).abs()
    # A step counts if both of its frames are in the segment, against the frames of that segment only.
    within = segments.same[1:] * (1 - segments.start[1:, None])
    steps = (change * within).sum(-1)
    dynamics = (steps @ segments.same[1:] / (segments.length * (segments.length - 1)).clamp_min(1)).T
    return torch.where(dynamics > NOISE, dynamics, torch.zeros_like(dynamics))


def segment_merit(
    x: Tensor, segments: Segments, uniqueness_weight: float, richness_weight: float, mode: Richness = "spectral"
) -> Tensor:
    """α·z(uniqueness) + β·z(richness) of each segment (InfoMerge, eq. 3 to 8).

    Args:
        x: [T, N, D] float32 tokens.
        segments: The partition of the T frames.
        uniqueness_weight: α, of one minus the cosine between the segment's mean token and the clip's.
        richness_weight: β, of the spectral entropy.
        mode: How richness is measured, see :func:`edgevtc.compressors.blocks.entropy.richness`.

    Returns:
        [T] float32, a segment's value on all of its frames.
    """
    frame_mean = x.mean(1)
    mean, clip_mean = segments.segment_mean(frame_mean), frame_mean.mean(0)
    uniqueness = direction_distances(unit(mean), unit(clip_mean)[None])[:, 0]
    merit = uniqueness_weight * standardize(uniqueness, segments)
    if richness_weight:
        merit = merit + richness_weight * standardize(richness(x, segments, mode), segments)
    return merit


def standardize(values: Tensor, segments: Segments) -> Tensor:
    """z-scores over the segments of values [T], with the population deviation; 0 where all segments agree."""
    weights = segments.start / segments.start.sum()
    centred = values - (weights * values).sum()
    deviation = (weights * centred.square()).sum().sqrt()
    return torch.where(deviation > NOISE, centred / deviation.clamp_min(NOISE), torch.zeros_like(centred))
