"""USTC (CVPR 2026), the stage before the LLM: a global pool of dissimilar tokens, and clusters of all the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgevtc.compressors.base import LARGEST_TOKEN_VALUE, Compressor, Features, Plan
from edgevtc.compressors.blocks.density import density_peaks, squared_distances
from edgevtc.compressors.blocks.frames import unit
from edgevtc.compressors.blocks.ranking import compact, compact_by_priority, prefix_count, top_mask
from edgevtc.compressors.blocks.slots import merge_into_rows, raster_slots
from edgevtc.methods.ustc import USTC

__all__ = ["USTCompressor", "dissimilar_tokens", "dissimilar_tokens_in_turn"]

#: Saliency of a token that may not be chosen, and of one that must; beyond every sanitized one.
NEVER, ALWAYS = -2 * LARGEST_TOKEN_VALUE, 2 * LARGEST_TOKEN_VALUE

#: Rounds of the pool's selection; random clips need 3.
ROUNDS = 8

#: Rows of the matrix of all pairs made at once.
ROWS = 2048

#: Differences of squared distances below this share of the lengths, from the mean, are float32 noise: the tokens are
#: equal.
NOISE = 1e-6


class USTCompressor(Compressor):
    """Unified Spatiotemporal Token Compression (arXiv:2603.21957), to exactly B tokens.

    In order of saliency over all frames, a token enters the pool if its cosine with every token of the pool is
    below τ, until the pool holds B − round(share·B) tokens; if it cannot be filled, the most salient rejected
    tokens fill it. What is not in the pool is clustered (DPC-KNN) into round(share·B) plain means, which are put
    back at their centres' positions.

    Left open by the paper, and chosen here: k = 7; features are the projected tokens; the share is one of the
    budget; centres come from the most salient `candidates` of the unkept tokens, and all of those join a cluster.
    Programs `parallel` and `loop` choose the same pool, and so does `pruned` wherever the pool is full before its
    candidates are exhausted.
    """

    spec = USTC

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        total = num_frames * tokens_per_frame
        self.num_clusters = 0 if budget == total else round(self.config["cluster_share"] * budget)
        self.num_pooled = budget - self.num_clusters
        candidates = self.config["candidates"]
        of_pool = max(candidates, self.num_pooled) if self.config["program"] == "pruned" else total
        self.pool_candidates = min(total, of_pool)
        self.centre_candidates = min(total - self.num_pooled, max(candidates, self.num_clusters))

    def plan(self, features: Features) -> Plan:
        assert features.saliency is not None
        frames, size = self.num_frames, self.tokens_per_frame
        x = features.frame_tokens.float().reshape(frames * size, -1)
        saliency = features.saliency.reshape(-1).clamp(-LARGEST_TOKEN_VALUE, LARGEST_TOKEN_VALUE)
        pooled = self._pool(x, saliency)
        if not self.num_clusters:
            return Plan(*raster_slots(pooled.reshape(frames, size), None, self.budget))

        centre = self._centres(x, torch.where(pooled, NEVER, saliency))
        nearest = _nearest(x, centre)
        cluster = torch.arange(self.num_clusters, dtype=torch.int32, device=x.device)[:, None]
        # A centre is in its own cluster even where another one is its equal.
        own = torch.arange(frames * size, dtype=torch.int32, device=x.device) == centre[:, None]
        is_centre = own.any(0)
        members = (own | ((nearest == cluster) & ~(pooled | is_centre))).to(torch.float32)
        positions, assignment = raster_slots(
            (pooled | is_centre).reshape(frames, size),
            torch.where(pooled, -1, centre.index_select(0, nearest)).reshape(frames, size),
            self.budget,
        )
        extra = {
            "merge": members / members.sum(1, keepdim=True),
            "merged": is_centre.index_select(0, positions),
        }
        return Plan(positions, assignment, extra)

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        if "merge" not in plan.extra:
            return x.reshape(-1, x.shape[-1]).index_select(0, plan.positions)
        return merge_into_rows(x, plan.positions, plan.extra["merge"], plan.extra["merged"])

    def _pool(self, x: Tensor, saliency: Tensor) -> Tensor:
        """[T·N] bool tokens of the pool."""
        total = saliency.shape[0]
        if self.num_pooled == total:
            return torch.ones_like(saliency, dtype=torch.bool)
        if not self.num_pooled:
            return torch.zeros_like(saliency, dtype=torch.bool)
        if self.config["program"] == "loop":
            accepted = dissimilar_tokens_in_turn(x, saliency, self.config["threshold"], self.num_pooled)
        elif self.pool_candidates == total:
            accepted = dissimilar_tokens(x, saliency, self.config["threshold"])
        else:
            candidate = top_mask(saliency, self.pool_candidates)
            index = compact(candidate, self.pool_candidates)
            accepted = dissimilar_tokens(
                x.index_select(0, index), saliency.index_select(0, index), self.config["threshold"]
            )
            row = (prefix_count(candidate) - 1).clamp_min(0).to(torch.int32)
            accepted = candidate & accepted.index_select(0, row)
        enough = accepted.sum(dtype=torch.float32) >= self.num_pooled
        surplus = torch.where(accepted, saliency, NEVER)
        shortage = torch.where(accepted, ALWAYS, saliency)
        return top_mask(torch.where(enough, surplus, shortage), self.num_pooled)

    def _centres(self, x: Tensor, saliency: Tensor) -> Tensor:
        """[C] int32 ascending raster indices of the cluster centres among tokens not in the pool."""
        index = compact_by_priority(saliency, self.centre_candidates)
        tokens = x.index_select(0, index)
        distance2 = squared_distances(tokens)
        norms = (tokens - tokens.mean(0)).square().mean(-1)
        noise = NOISE * (norms[:, None] + norms[None, :])
        distance2 = torch.where(distance2 > noise, distance2, 0.0)
        every = torch.ones_like(norms, dtype=torch.bool)
        neighbours = min(self.config["neighbours"], self.centre_candidates)
        _, score = density_peaks(distance2, every, neighbours)
        chosen = compact(top_mask(score, self.num_clusters), self.num_clusters)
        return index.index_select(0, chosen)


def dissimilar_tokens(x: Tensor, saliency: Tensor, threshold: float) -> Tensor:
    """Which tokens a greedy pass in order of saliency accepts: cosine below a threshold with all accepted ones.

    That set is found in rounds: accept every open token that no more salient open one resembles, then close
    those which resemble an accepted one. What is still open after :data:`ROUNDS` rounds counts as rejected.

    Args:
        x: [M, D] float32 tokens.
        saliency: [M] float32; equal ones go by lower index.
        threshold: τ.

    Returns:
        [M] bool.
    """
    size, directions = x.shape[0], unit(x)
    index = torch.arange(size, dtype=torch.int32, device=x.device)
    blockers = []
    for first in range(0, size, ROWS):
        rows = slice(first, min(first + ROWS, size))
        mine = saliency[rows, None]
        before = (saliency[None, :] > mine) | ((saliency[None, :] == mine) & (index[None, :] < index[rows, None]))
        blockers.append((directions[rows] @ directions.T >= threshold) & before)

    def any_blocks(tokens: Tensor) -> Tensor:
        column = tokens.to(torch.float32)[:, None]
        return torch.cat([block.to(torch.float32) @ column for block in blockers])[:, 0] > 0

    accepted = torch.zeros(size, dtype=torch.bool, device=x.device)
    still_open = torch.ones_like(accepted)
    for _ in range(ROUNDS):
        accepted = accepted | (still_open & ~any_blocks(still_open))
        still_open = still_open & ~accepted & ~any_blocks(accepted)
    return accepted


def dissimilar_tokens_in_turn(x: Tensor, saliency: Tensor, threshold: float, number: int) -> Tensor:
    """The first of :func:`dissimilar_tokens`, one after the other as the paper has it: no matrix of all pairs.

    Args:
        x: [M, D] float32 tokens.
        saliency: [M] float32; equal ones go by lower index.
        threshold: τ.
        number: Most tokens that are accepted, each a step of the program.

    Returns:
        [M] bool.
    """
    directions, index = unit(x), torch.arange(x.shape[0], dtype=torch.int32, device=x.device)
    accepted = torch.zeros_like(index, dtype=torch.bool)
    still_open = torch.ones_like(accepted)
    for _ in range(number):
        best = torch.where(still_open, saliency, NEVER)[None].argmax(-1).to(torch.int32)
        taken = (index == best) & still_open
        accepted = accepted | taken
        still_open = still_open & ~taken & ((directions @ directions.index_select(0, best)[0]) < threshold)
    return accepted


def _nearest(x: Tensor, centre: Tensor) -> Tensor:
    """[M] int32 number of the nearest of the centres [C] of each row of x [M, D]; of equal ones the first."""
    centres = x.index_select(0, centre)
    # What all have in common would leave the products no digits to tell like tokens apart.
    mean = centres.mean(0)
    centres, x = centres - mean, x - mean
    norms = centres.square().sum(-1)
    reach = norms[:, None] - 2 * (centres @ x.T)
    noise = NOISE * (norms.max() + x.square().sum(-1))
    reversed_row = torch.arange(centre.shape[0], 0, -1, dtype=torch.float32, device=x.device)[:, None]
    first = torch.where(reach <= reach.amin(0) + noise, reversed_row, 0.0).amax(0)
    return (centre.shape[0] - first).to(torch.int32)
