"""LLaVA-Scissor: semantic connected components in two steps, in space and over time, to exactly B tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.base import Compressor, Features, Plan
from edgevtc.compressors.blocks.density import direction_distances
from edgevtc.compressors.blocks.frames import unit
from edgevtc.compressors.blocks.ranking import compact, histogram, prefix_count, top_mask
from edgevtc.compressors.blocks.slots import raster_slots
from edgevtc.methods.scissor import SCISSOR

__all__ = ["Scissor", "component_centres", "connected_components"]

#: Rounds of label propagation, and jumps in each; graphs of tokens are through after 4. A component that is not
#: through would be split.
ROUNDS, JUMPS = 7, 4

#: Cosines this close are equal but for float32 noise.
NOISE = 1e-6

#: Tiers of the order in which slots are given; above every number of tokens.
TIER = 1e6


class Scissor(Compressor):
    """LLaVA-Scissor (arXiv:2506.21862), to exactly B tokens.

    Tokens of a frame whose cosine is above τ are connected, and each connected component becomes its mean. The
    components of all frames are connected and averaged once more. Then each token of the clip is added to the most
    similar of these representatives, which becomes the mean of itself and what was added. A component has the
    position of its node of highest degree.

    The published number of tokens follows from τ alone. Here the components of most tokens are kept; where there
    are fewer than B, components of single frames represent themselves too, those of most tokens first, and then
    tokens in raster order. Components are exact, where the published union-find can lose nodes; over the clip only
    the `candidates` largest of all frames are looked at. In `assignment` a kept position is in its own slot, even
    where its token is more similar to another one.
    """

    spec = SCISSOR

    def plan(self, features: Features) -> Plan:
        frames, size, budget = self.num_frames, self.tokens_per_frame, self.budget
        x = features.frame_tokens.float()
        total = frames * size
        if budget == total:
            return Plan(*raster_slots(torch.ones_like(x[..., 0], dtype=torch.bool), None, total))
        flat = x.reshape(total, -1)
        raster = torch.arange(total, dtype=torch.int32, device=x.device)

        # In each frame.
        connected = _connected(x, self.config["threshold"])
        label = connected_components(connected)
        centre = component_centres(connected, label)
        offset = torch.arange(frames, dtype=torch.int32, device=x.device)[:, None] * size
        of_frame = (centre + offset).reshape(-1)
        in_component = (label[:, :, None] == label[:, None, :]).to(torch.float32)
        tokens = in_component.sum(-1).reshape(-1)
        is_representative = of_frame == raster

        # Over the clip.
        num_candidates = min(total, self.config["candidates"])
        candidate = top_mask(torch.where(is_representative, tokens, 0.0), num_candidates)
        index = compact(candidate, num_candidates)
        sums = (in_component @ x).reshape(total, -1)
        mean = sums.index_select(0, index)
        valid = is_representative.index_select(0, index)
        linked = _connected(mean[None], self.config["threshold"]) & valid[:, None] & valid
        group = component_centres(linked, connected_components(linked))[0]
        row = (prefix_count(candidate) - 1).clamp_min(0).to(torch.int32)
        of_candidate = index.index_select(0, group.index_select(0, row))
        of_clip = torch.where(candidate & is_representative, of_candidate, raster).index_select(0, of_frame)
        is_clip_centre = of_clip == raster
        components = histogram(torch.where(is_representative, of_clip, -1), total).to(torch.float32)

        tier = torch.where(is_representative, TIER + tokens, 0.0)
        priority = torch.where(is_clip_centre, 2 * TIER + histogram(of_clip, total), tier)
        kept = top_mask(priority, budget)
        positions, assignment = raster_slots(kept.reshape(frames, size), None, budget)
        slot = assignment.reshape(-1)

        of_clip_slot = slot.index_select(0, of_clip)
        of_clip_share = 1 / (components.index_select(0, of_clip) * tokens).clamp_min(1)
        of_frame_slot = torch.where(is_clip_centre, -1, slot).index_select(0, of_frame)
        own_slot = torch.where(is_representative, -1, slot)
        merge = (
            _rows(of_clip_slot, of_clip_share, budget)
            + _rows(of_frame_slot, 1 / tokens, budget)
            + _rows(own_slot, torch.ones_like(tokens), budget)
        )
        # What merge @ flat gives, from sums that are there already: a fifth of the multiplications.
        target = of_clip.index_select(0, index)
        slot_of_candidate = torch.where(valid, slot.index_select(0, target), -1)
        share = 1 / (components.index_select(0, target) * tokens.index_select(0, index)).clamp_min(1)
        of_candidates = _rows(slot_of_candidate, share, budget) @ mean
        own = sums.index_select(0, positions) / tokens.index_select(0, positions)[:, None]
        own = torch.where(is_representative.index_select(0, positions)[:, None], own, flat.index_select(0, positions))
        over_clip = (candidate & is_representative & is_clip_centre).index_select(0, positions)
        closest = _most_similar(flat, torch.where(over_clip[:, None], of_candidates, own))
        added = _rows(closest, torch.ones_like(tokens), budget)
        merge = (merge + added) / (1 + added.sum(1, keepdim=True))
        return Plan(positions, torch.where(slot >= 0, slot, closest).reshape(frames, size), {"merge": merge})

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        flat = x.reshape(-1, x.shape[-1])
        if "merge" not in plan.extra:
            return flat.index_select(0, plan.positions)
        return plan.extra["merge"].to(x.dtype) @ flat


def connected_components(connected: Tensor) -> Tensor:
    """[G, M] int32 least index of each node's component, for graphs connected [G, M, M] bool, symmetric.

    In each round all nodes of a label take the least label next to any of them, and labels jump to theirs.
    """
    graphs, size = connected.shape[:2]
    index = torch.arange(size, dtype=torch.float32, device=connected.device)
    reach = connected | (index[:, None] == index)
    first_node = torch.arange(graphs, dtype=torch.int32, device=connected.device)[:, None] * size
    label = index[None, :].expand(graphs, size)
    for _ in range(ROUNDS):
        beside = torch.where(reach, label[:, None, :], float(size)).amin(-1)
        label = torch.where(label[:, :, None] == label[:, None, :], beside[:, None, :], float(size)).amin(-1)
        for _ in range(JUMPS):
            node = (label.to(torch.int32) + first_node).reshape(-1)
            label = label.reshape(-1).index_select(0, node).reshape(graphs, size)
    return label.to(torch.int32)


def component_centres(connected: Tensor, label: Tensor) -> Tensor:
    """[G, M] int32 node of highest degree in each node's component, of equal ones the first.

    Args:
        connected: [G, M, M] bool.
        label: [G, M] int32 as from :func:`connected_components`.
    """
    size = label.shape[-1]
    reversed_index = torch.arange(size, 0, -1, dtype=torch.float32, device=label.device)
    # Both in one whole number below 2²⁴.
    key = connected.sum(-1, dtype=torch.float32) * (size + 1) + reversed_index
    best = torch.where(label[:, :, None] == label[:, None, :], key[:, None, :], 0.0).amax(-1)
    return (size - best % (size + 1)).to(torch.int32)


def _connected(x: Tensor, threshold: float) -> Tensor:
    """[G, M, M] bool pairs of x [G, M, D] whose cosine is above a threshold."""
    directions = unit(x)
    above = directions @ directions.transpose(1, 2) > threshold
    return above | above.transpose(1, 2)


def _rows(slot: Tensor, weight: Tensor, budget: int) -> Tensor:
    """[B, M] weights [M] in the rows named by slot [M] int32; −1 is none."""
    row = torch.arange(budget, dtype=torch.int32, device=slot.device)[:, None]
    return torch.where(slot == row, weight, 0.0)


def _most_similar(x: Tensor, representatives: Tensor) -> Tensor:
    """[M] int32 row of representatives [B, D] with the largest cosine to each row of x [M, D]; the first of equals."""
    distance = direction_distances(unit(representatives), unit(x))
    rows = representatives.shape[0]
    reversed_row = torch.arange(rows, 0, -1, dtype=torch.float32, device=x.device)[:, None]
    first = torch.where(distance <= distance.amin(0) + NOISE, reversed_row, 0.0).amax(0)
    return (rows - first).to(torch.int32)
