"""DivPrune (CVPR 2025): tokens chosen one after another, each as far as can be from those chosen before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgevtc.compressors.base import Features
from edgevtc.compressors.blocks.density import cosine_distances
from edgevtc.compressors.blocks.frames import even_shares
from edgevtc.compressors.selection import Selection
from edgevtc.methods.divprune import DIVPRUNE

__all__ = ["DivPrune"]

#: Cosine distances lie between 0 and 2.
FAR, CHOSEN = 4.0, -1.0


class DivPrune(Selection):
    """Max–min diversity by cosine distance (eq. 4), in each frame for itself and in all frames at once.

    The published method chooses from all tokens together, in B dependent steps. Here every frame has ⌊B/T⌋ tokens
    or one more, which takes ⌈B/T⌉ steps of T·N distances each; a frame's choice is the published one for that frame
    alone. The published code may choose a token again where all others are as close as duplicates, and a zero token
    makes its distances NaN; here a token is chosen once, and a zero token is at distance 1 from all.
    """

    spec = DIVPRUNE

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        self.shares = even_shares(budget, num_frames)

    def choose(self, features: Features) -> Tensor:
        frames, size = self.num_frames, self.tokens_per_frame
        distance = cosine_distances(features.frame_tokens)
        index = torch.arange(size, dtype=torch.int32, device=distance.device)
        first_row = torch.arange(frames, dtype=torch.int32, device=distance.device) * size
        shares = torch.tensor(self.shares, device=distance.device)[:, None]

        # Before any is chosen, the nearest other token counts.
        nearest = torch.where(index[:, None] == index, FAR, distance).amin(2)
        chosen = torch.zeros_like(nearest, dtype=torch.bool)
        distance = distance.reshape(frames * size, size)
        for step in range(max(self.shares)):
            pick = _first_largest(torch.where(chosen, CHOSEN, nearest))
            is_pick = pick[:, None] == index
            chosen = chosen | (is_pick & (shares > step))
            to_pick = distance.index_select(0, first_row + pick)
            nearest = to_pick if step == 0 else torch.minimum(nearest, to_pick)
        return chosen


def _first_largest(values: Tensor) -> Tensor:
    """[T] int32 index of the largest of each row of values [T, N], of equal ones the lowest.

    Reversed numbers make a plain maximum prefer the lower index, where ArgMax leaves ties open.
    """
    size = values.shape[1]
    reversed_index = torch.arange(size, 0, -1, dtype=torch.float32, device=values.device)
    hit = values >= values.amax(1, keepdim=True)
    return (size - torch.where(hit, reversed_index, 0.0).amax(1)).to(torch.int32)
