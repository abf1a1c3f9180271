"""VisionZip (CVPR 2025), its form for video: dominant tokens by saliency, contextual tokens by merging over keys."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from edgevtc.compressors.base import Compressor, Features, Plan
from edgevtc.compressors.blocks.density import assign_to_centres, cosine_distances
from edgevtc.compressors.blocks.frames import even_shares, folded_by_frame
from edgevtc.compressors.blocks.ranking import one_hot, stable_rank
from edgevtc.compressors.blocks.slots import raster_slots
from edgevtc.methods.visionzip import VISIONZIP

__all__ = ["VisionZip"]

#: Keeps a product such as (1 − 0.3)·10 from falling below the whole number it means.
ROUNDING = 1e-9


class VisionZip(Compressor):
    """Frame by frame: the most salient tokens, and every step-th other one with the mean of those most like it.

    A frame has ⌊B/T⌋ tokens or one more, the published number where T divides B, and of s tokens ⌊s·54/64⌋ are
    salient, as published; a frame's only token is, where that share is above a half. Output is in raster order; the
    published code lists a frame's salient tokens before the others, and in its mode with newline tokens mixes up their
    places. Without room for a contextual token, which stops the published code, the rest is dropped.
    """

    spec = VISIONZIP

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        self.shares = even_shares(budget, num_frames)
        dominant = self.config["dominant_share"]
        self.dominant = [
            math.floor(dominant * share + ROUNDING) if share > 1 else round(dominant) * share for share in self.shares
        ]

    def plan(self, features: Features) -> Plan:
        assert features.saliency is not None and features.keys is not None
        size = self.tokens_per_frame
        dominant, target = self.choose(features.saliency)
        label = assign_to_centres(cosine_distances(features.keys), target, ~dominant)
        members = one_hot(torch.where(target, -1, label), size).sum(1)
        count = members.gather(1, label.clamp_min(0).to(torch.int64))
        if self.config["merge"] == "sum":
            weight = torch.where(target | dominant, 1.0, 1 / count.clamp_min(1))
        else:
            weight = torch.where(dominant, 1.0, 1 / (count + 1))
        first = torch.arange(self.num_frames, dtype=torch.int32, device=label.device)[:, None] * size
        into = torch.where(label >= 0, first + label, -1)
        return Plan(*raster_slots(dominant | target, into, self.budget), {"weight": weight})

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        return folded_by_frame(x, plan.assignment, plan.extra["weight"], self.shares)

    def choose(self, saliency: Tensor) -> tuple[Tensor, Tensor]:
        """Dominant tokens [T, N] bool, and those of the others at even steps [T, N] bool, which become contextual."""
        size = self.tokens_per_frame
        count = [share - dominant for share, dominant in zip(self.shares, self.dominant, strict=True)]
        step = [max(1, (size - d) // max(1, c)) for d, c in zip(self.dominant, count, strict=True)]
        dominants, counts, steps = (
            torch.tensor(values, dtype=torch.float32, device=saliency.device)[:, None]
            for values in (self.dominant, count, step)
        )
        dominant = stable_rank(saliency) < dominants
        order = (~dominant).to(torch.float32) @ torch.ones(size, size, device=saliency.device).triu() - 1
        # Half a unit keeps the quotient of whole numbers off the edge between two.
        turn = torch.floor((order + 0.5) / steps)
        return dominant, ~dominant & (order == turn * steps) & (turn < counts)
