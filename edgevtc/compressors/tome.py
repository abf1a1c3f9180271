"""ToMe (ICLR 2023): token merging by bipartite soft matching, applied to the tokens of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from edgevtc.compressors.base import Compressor, Features, Plan
from edgevtc.compressors.blocks.frames import even_shares, folded_by_frame, unit
from edgevtc.compressors.blocks.ranking import one_hot, stable_rank
from edgevtc.compressors.blocks.slots import raster_slots
from edgevtc.methods.tome import TOME

__all__ = ["ToMe", "merge_round", "rounds_to"]


class ToMe(Compressor):
    """Rounds of matching in each frame: every other token joins the most similar one between, the best pairs first.

    A frame ends with ⌊B/T⌋ tokens or one more. A round that merges half of them has no choice left of which, so there
    is one round more than halving takes, and each leaves about the same share. The published method merges a fixed
    number in each layer of the encoder, whose keys it computes anew; here all rounds come after it, and a merged
    token's key is the mean of its members'.
    A merged token is the plain mean of all its members and stands where the token stood that the others joined. A
    zero token, which makes the published similarities NaN and merges first, has similarity 0 to all. A frame whose
    share of a small budget is no token is dropped.
    """

    spec = TOME

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        self.shares = even_shares(budget, num_frames)
        #: Tokens of each frame after each round; only the last one leaves the frames different numbers.
        self.rounds = rounds_to([max(1, share) for share in self.shares], tokens_per_frame, self.config["spare_rounds"])

    def plan(self, features: Features) -> Plan:
        assert features.keys is not None
        frames, size = self.num_frames, self.tokens_per_frame
        group, alive = self.merge(features.frame_tokens, features.keys)
        in_use = torch.tensor(self.shares, device=group.device)[:, None] > 0
        # Of all tokens of a frame in a group, one is alive: the group stands there.
        place = torch.arange(size, dtype=torch.float32, device=group.device)
        stands_at = torch.where(_together(group) & alive[:, None, :], place, -1.0).amax(-1).to(torch.int32)
        first = torch.arange(frames, dtype=torch.int32, device=group.device)[:, None] * size
        target = torch.where(in_use, first + stands_at, -1)
        positions, assignment = raster_slots(alive & in_use, target, self.budget)
        return Plan(positions, assignment, {"weight": _mean_weights(group)})

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        return folded_by_frame(x, plan.assignment, plan.extra["weight"], self.shares)

    def merge(self, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The group [T, N] int32 that each token ends in, in the published order; the ones groups stand at, bool."""
        frames, size = self.num_frames, self.tokens_per_frame
        group = torch.arange(size, dtype=torch.int32, device=keys.device).expand(frames, size)
        alive = torch.ones_like(group, dtype=torch.bool)
        metric, features = keys, keys if self.config["metric"] == "keys" else x
        for number, counts in enumerate(self.rounds):
            if number:
                members = one_hot(group, max(self.rounds[number - 1])) * _mean_weights(group)[..., None]
                metric = members.transpose(1, 2).to(features.dtype) @ features
            slot, merged = merge_round(metric, counts)
            index = group.to(torch.int64)
            alive = alive & ~merged.gather(1, index)
            group = slot.gather(1, index)
        return group, alive


def merge_round(metric: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """One bipartite matching: even tokens, by their most similar odd one, merge with it until `counts` are left.

    Args:
        metric: [T, n, Dk] what the cosine is taken of.
        counts: Tokens left in each frame, from ⌈n/2⌉ to n.

    Returns:
        slot [T, n] int32 of each token among those left: the even ones that did not merge, from the most similar
        on, then all odd ones; merged [T, n] bool, the even tokens that did.
    """
    size = metric.shape[1]
    tokens = unit(metric)
    even, odd = tokens[:, ::2], tokens[:, 1::2]
    evens, odds = even.shape[1], odd.shape[1]
    similarity = even @ odd.transpose(1, 2)
    best = similarity.amax(-1)
    # Reversed numbers make a plain maximum prefer the lower index, where ArgMax leaves ties open.
    reversed_index = torch.arange(odds, 0, -1, dtype=torch.float32, device=metric.device)
    nearest = odds - torch.where(similarity >= best[..., None], reversed_index, 0.0).amax(-1)
    removed = torch.tensor([size - count for count in counts], dtype=torch.float32, device=metric.device)[:, None]
    rank = stable_rank(best)
    merged = rank < removed
    of_even = torch.where(merged, evens - removed + nearest, rank - removed)
    of_odd = evens - removed + torch.arange(odds, dtype=torch.float32, device=metric.device)
    return _interleaved(of_even, of_odd).to(torch.int32), _interleaved(merged, torch.zeros_like(of_odd) > 0)


def rounds_to(shares: Sequence[int], size: int, spare: int = 0) -> list[list[int]]:
    """Tokens of each frame after each round, from `size` to `shares`, which differ by one at most and are not 0.

    In `spare` rounds more than the fewest that halving allows, as long as each has something to merge.
    """
    fewest, largest = min(shares), max(shares)
    number = (-(-size // fewest) - 1).bit_length()
    number += spare if number else 0
    rounds, left = [], size
    for step in range(1, number):
        even_pace = round(size * (largest / size) ** (step / number))
        # No round can take more than half, and the rounds to come must be able to reach the smallest share.
        left = max(left - left // 2, min(even_pace, fewest << (number - step)))
        rounds.append([left] * len(shares))
    return [[*after] for after, _ in groupby([[size] * len(shares), *rounds, list(shares)])][1:]


def _together(group: Tensor) -> Tensor:
    """[T, N, N] bool, whether two tokens are in the same group [T, N]."""
    return group[:, :, None] == group[:, None, :]


def _mean_weights(group: Tensor) -> Tensor:
    """[T, N] float32 one over the number of tokens of the frame in the same group [T, N]."""
    return 1 / _together(group).sum(-1, dtype=torch.float32)


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """[T, n] from the entries [T, ⌈n/2⌉] at even and [T, ⌊n/2⌋] at odd places."""
    size = even.shape[1] + odd.shape[1]
    order = torch.arange(size, device=even.device)
    order = torch.where(order % 2 == 0, order // 2, even.shape[1] + order // 2)
    return torch.cat([even, odd], 1).index_select(1, order)
