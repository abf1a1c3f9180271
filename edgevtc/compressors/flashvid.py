"""FlashVID, the stage before the LLM: attention- and diversity-based selection, tree-based spatiotemporal merging."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgevtc.compressors.base import LARGEST_TOKEN_VALUE, Compressor, Features, Plan
from edgevtc.compressors.blocks.apportion import apportion
from edgevtc.compressors.blocks.ats import shares_rounded_up
from edgevtc.compressors.blocks.density import (
    FAR,
    assign_to_centres,
    cosine_distances,
    density_peaks,
    squared_distances,
)
from edgevtc.compressors.blocks.dyseg import dyseg
from edgevtc.compressors.blocks.frames import unit, without_direction
from edgevtc.compressors.blocks.merging import merge_weights
from edgevtc.compressors.blocks.ranking import histogram, one_hot, stable_rank, top_mask
from edgevtc.compressors.blocks.segments import Segments
from edgevtc.compressors.blocks.slots import folded, raster_slots
from edgevtc.methods.flashvid import FLASHVID

__all__ = ["FlashVID", "Trees"]

#: Smaller distances of directions are float32 noise: the tokens look alike.
NOISE = 1e-7

#: Below every weighted distance.
CHOSEN = -3e38


class Trees:
    """Tokens linked to a token of the frame before, down to the roots.

    Args:
        link: [T, N] bool, whether a token is linked; false in the first frame.
        parent: [T, N] int32 position in the frame before.

    Attributes:
        root: [T·N] int32 raster index of each token's root, its own where it is not linked.
        members: [T·N] float32 tokens of each root's tree.
        children: [T·N] float32 tokens linked to each token.
    """

    def __init__(self, link: Tensor, parent: Tensor) -> None:
        frames, size = link.shape
        total = frames * size
        raster = torch.arange(total, dtype=torch.int32, device=link.device).reshape(frames, size)
        frame_before = torch.arange(-1, frames - 1, dtype=torch.int32, device=link.device)[:, None] * size
        self.root = torch.where(link, frame_before + parent, raster).reshape(-1)
        for _ in range(math.ceil(math.log2(frames))):
            self.root = self.root.index_select(0, self.root)
        self.members = histogram(self.root, total).to(torch.float32)
        # [T, N, N], row: parent in the frame before.
        self._links = one_hot(torch.where(link, parent, -1), size).transpose(1, 2)
        self.children = functional.pad(self._links[1:].sum(-1), (0, 0, 0, 1)).reshape(-1)

    def sums(self, x: Tensor) -> Tensor:
        """[T, N, D] sum of x [T, N, D] over each token and all that lead to it."""
        frames = list(x.split(1))
        links = self._links.split(1)
        for t in range(len(frames) - 2, -1, -1):
            frames[t] = frames[t] + links[t + 1] @ frames[t + 1]
        return torch.cat(frames)


class FlashVID(Compressor):
    """FlashVID before the LLM (arXiv:2602.08024), to exactly B tokens.

    Each frame keeps ⌈α·B/T⌉ tokens (⌊B/T⌋ at most) by max-min diversity, distances weighted by attention (ADTS);
    where B < T, ⌈α·B⌉ frames at even steps keep one.
    Every other token joins its most similar one in the frame before, within a segment, if their cosine is above a
    threshold (TSTM); the roots of these trees are clustered frame by frame (DPC-KNN), with shares of the budget
    in proportion to a frame's roots and its segment's length, by largest remainder where the published code
    rounds up. So that enough roots remain, only the T·N − B most similar links are made.

    Mended: trees merge into their means (`tree_divisor`); a chosen token is not chosen again; in a segment of one
    frame the selected tokens are not clustered once more. The published expansion factor, which makes room for
    pruning inside the LLM, is the caller's: it is part of B.
    """

    spec = FLASHVID

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        self.selected_shares = shares_rounded_up(self.config["selected_share"], budget, num_frames)
        self.num_merged = budget - sum(self.selected_shares)

    def plan(self, features: Features) -> Plan:
        assert features.saliency is not None
        x, total = features.frame_tokens.float(), self.num_frames * self.tokens_per_frame
        if self.budget == total:
            return Plan(*raster_slots(torch.ones_like(x[..., 0], dtype=torch.bool), None, total))
        segments = dyseg(x.mean(1), self.config["min_segments"], self.config["segment_threshold"])
        selected = self.select(x, features.saliency, segments)
        if not self.num_merged:
            return Plan(*raster_slots(selected, None, self.budget), segments=segments.number)
        trees = self.trees(x, selected, segments)
        own = torch.arange(total, dtype=torch.int32, device=x.device)
        roots = (trees.root == own).reshape(selected.shape) & ~selected
        sizes = roots.sum(1, dtype=torch.float32)
        weights = sizes * segments.length / segments.segment_sum(sizes).clamp_min(1)
        counts = apportion(weights, sizes, self.num_merged)
        chosen, label, weight = self.cluster(x, trees, roots, counts)

        frame = torch.arange(self.num_frames, dtype=torch.int32, device=x.device)[:, None]
        centre = torch.where(label >= 0, frame * self.tokens_per_frame + label, -1).reshape(-1)
        target = centre.index_select(0, trees.root).reshape(selected.shape)
        target = torch.where(selected, -1, target)
        positions, assignment = raster_slots(selected | chosen, target, self.budget)
        of_root = weight.reshape(-1).index_select(0, trees.root).reshape(selected.shape)
        extra = {"weight": torch.where(selected, 1.0, of_root)}
        return Plan(positions, assignment, extra, segments.number)

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        if "weight" not in plan.extra:
            return x.reshape(-1, x.shape[-1]).index_select(0, plan.positions)
        return folded(x, plan.assignment, plan.extra["weight"], self.budget)

    def select(self, x: Tensor, saliency: Tensor, segments: Segments) -> Tensor:
        """ADTS: [T, N] bool tokens of x [T, N, D] that are attended and far from each other, each frame's share."""
        frames, size = saliency.shape
        chosen = torch.zeros_like(saliency, dtype=torch.bool)
        fewest, most = min(self.selected_shares), max(self.selected_shares)
        if not most:
            return chosen
        distance = cosine_distances(x)
        weights = saliency.clamp(-LARGEST_TOKEN_VALUE, LARGEST_TOKEN_VALUE)
        if self.config["selection"] == "attn_div_v2":
            weights = weights * (x @ segments.segment_mean(x.mean(1))[:, :, None])[..., 0]
        distance = (torch.where(distance > NOISE, distance, 0.0) * weights[:, None, :]).reshape(frames * size, size)

        # Begin with the token whose nearest other is the farthest; of its own column each has a 0.
        smallest = torch.topk(distance.reshape(frames, size, size), min(2, size), dim=1, largest=False).values
        gap = smallest[:, -1]
        frame = torch.arange(frames, dtype=torch.int32, device=x.device) * size
        index = torch.arange(size, dtype=torch.int32, device=x.device)
        reversed_index = torch.arange(size, 0, -1, dtype=torch.float32, device=x.device)
        for step in range(most):
            gap = torch.where(chosen, CHOSEN, gap)
            first = torch.where(gap >= gap.amax(1, keepdim=True), reversed_index, 0.0).amax(1)
            pick = (size - first).to(torch.int32)
            picked = index == pick[:, None]
            if step >= fewest:
                picked = (
                    picked & torch.tensor([share > step for share in self.selected_shares], device=x.device)[:, None]
                )
            chosen = chosen | picked
            to_pick = distance.index_select(0, frame + pick)
            gap = torch.minimum(gap, to_pick) if step else to_pick
        return chosen

    def trees(self, x: Tensor, selected: Tensor, segments: Segments) -> Trees:
        """TSTM: links of the tokens of x [T, N, D] that are not selected [T, N]."""
        frames, size = selected.shape
        if frames == 1:
            return Trees(torch.zeros_like(selected), torch.zeros_like(selected, dtype=torch.int32))
        # As direction_distances, whose copies of both sides would not fit in the memory that is allowed.
        directions = unit(x)
        apart = directions - directions.mean((0, 1))
        half = torch.linalg.vector_norm(apart, dim=-1).square() / 2
        distance = half[1:, :, None] + half[:-1, None, :] - apart[1:] @ apart[:-1].transpose(1, 2)
        none = without_direction(directions)
        distance = torch.where(none[1:, :, None] | none[:-1, None, :], 1.0, distance)
        distance = torch.where(selected[:-1, None, :], FAR, distance)
        nearest = distance.amin(-1)
        reversed_index = torch.arange(size, 0, -1, dtype=torch.float32, device=x.device)
        parent = size - torch.where(distance <= nearest[..., None], reversed_index, 0.0).amax(-1)
        open_to_link = ~selected[1:] & (segments.start[1:, None] < 1)
        nearest = torch.where(open_to_link, torch.where(nearest > NOISE, nearest, 0.0), FAR)
        most = min(frames * size - self.budget, nearest.numel())
        closest = top_mask(-nearest.reshape(-1), most).reshape(nearest.shape)
        link = (nearest < 1 - self.config["temporal_threshold"]) & closest
        # The first frame has nothing before it.
        return Trees(
            torch.cat([torch.zeros_like(link[:1]), link]), functional.pad(parent, (0, 0, 1, 0)).to(torch.int32)
        )

    def cluster(self, x: Tensor, trees: Trees, roots: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clusters of the roots of each frame.

        Args:
            x: [T, N, D] float32 tokens.
            trees: Their trees.
            roots: [T, N] bool tokens to be clustered.
            counts: [T] clusters of each frame.

        Returns:
            centres [T, N] bool; label [T, N] int32 position of a root's centre, −1 for none; weight [T, N] of
            each token of a root's tree in the merged token.
        """
        by_members = self.config["tree_divisor"] == "members"
        divisor = (trees.members.clamp_min(1) if by_members else 1 + trees.children).reshape(roots.shape)
        distance2 = squared_distances(trees.sums(x) / divisor[..., None], roots)
        _, score = density_peaks(distance2, roots, self.config["neighbours"], counts)
        chosen = roots & (stable_rank(score) < counts[:, None])
        label = assign_to_centres(distance2, chosen, roots)
        return chosen, label, merge_weights(label, None) / divisor
