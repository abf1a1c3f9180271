"""DyCoke (CVPR 2025), the stage before the LLM: temporal token merging (TTM)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from edgevtc.compressors.base import Features
from edgevtc.compressors.blocks.apportion import apportion
from edgevtc.compressors.blocks.frames import change_since, even_steps
from edgevtc.compressors.blocks.ranking import stable_rank
from edgevtc.compressors.selection import Selection
from edgevtc.methods.dycoke import DYCOKE

__all__ = ["DyCoke"]

#: Keeps a product such as (1 − 0.7)·10 from falling below the whole number it means.
ROUNDING = 1e-9


class DyCoke(Selection):
    """Of every four frames the first is whole; the second and fourth keep what is least like the frame before them,
    the third what is least like the first.

    The published code keeps ⌊(1−k)·N⌋ tokens of a pruned frame. Here the frames share the budget in proportion to
    that and to N for the whole ones, and none can have more than N: the published counts where the budget is the
    published one for this k. A larger budget goes to the pruned frames in equal parts. A smaller one cuts the whole
    frames as well: the first to even steps over the raster, each other one to what is least like the whole one
    before it. Output is in raster order, there by similarity.

    The published code keeps the third of the last four frames whole where 4 divides T, and drops the last frame of
    an odd number. Here, too, unless `last_frames` is regular; but the dropped frame takes what no other can hold.
    """

    spec = DYCOKE

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        published = self.config["last_frames"] == "published"
        pruned = math.floor((1 - self.config["pruning_rate"]) * tokens_per_frame + ROUNDING)
        weights = [tokens_per_frame if self._is_whole(t, published) else pruned for t in range(num_frames)]
        if published and num_frames > 1 and num_frames % 2:
            weights[-1] = 0
        caps = torch.full((num_frames,), float(tokens_per_frame))
        shares = apportion(torch.tensor(weights, dtype=torch.float32), caps, budget)
        #: Tokens of each frame.
        self.shares = [int(share) for share in shares]

    def choose(self, features: Features) -> Tensor:
        # Frame t is compared to t−1 where t is odd, to t−2 where it is the third of four, to t−4 where the first.
        reference = [max(0, t - (1 if t % 2 else 2 if t % 4 else 4)) for t in range(self.num_frames)]
        change = change_since(features.frame_tokens.float(), reference)
        first = torch.zeros(self.tokens_per_frame, device=change.device)
        first[even_steps(self.tokens_per_frame, self.shares[0])] = 1
        frame = torch.arange(self.num_frames, device=change.device)[:, None]
        shares = torch.tensor(self.shares, dtype=torch.float32, device=change.device)[:, None]
        return stable_rank(torch.where(frame == 0, first, change)) < shares

    def _is_whole(self, frame: int, published: bool) -> bool:
        if frame % 2:
            return False
        return frame % 4 == 0 or (published and frame >= self.num_frames - 2)
