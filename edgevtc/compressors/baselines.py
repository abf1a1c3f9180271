"""`none` and `uniform`: selections that do not look at the video."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgevtc.compressors.base import Compressor, Features, Plan
from edgevtc.errors import ConfigError
from edgevtc.methods import baselines

__all__ = ["KeepAll", "Uniform"]

GOLDEN_RATIO = (5**0.5 - 1) / 2


class KeepAll(Compressor):
    """Identity; the budget must be T·N."""

    spec = baselines.NONE

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        if budget != num_frames * tokens_per_frame:
            raise ConfigError(
                f"method none keeps all {num_frames * tokens_per_frame} tokens, not {budget}: "
                "leave the budget out or choose another method"
            )

    def plan(self, features: Features) -> Plan:
        every = torch.arange(self.budget, dtype=torch.int32)
        return Plan(every, every.reshape(self.num_frames, self.tokens_per_frame))

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.reshape(self.budget, x.shape[-1])


class Uniform(Compressor):
    """Even steps over time and, in a frame, over the raster; the start moves by the golden ratio from frame to frame.

    Without the moving start, a step that divides the grid's width would keep the same columns in every frame.
    """

    spec = baselines.UNIFORM
    positions: Tensor
    assignment: Tensor

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        positions = []
        for frame in range(num_frames):
            share = (frame + 1) * budget // num_frames - frame * budget // num_frames
            start = (0.5 + frame * GOLDEN_RATIO) % 1
            positions += [frame * tokens_per_frame + int((i + start) * tokens_per_frame / share) for i in range(share)]
        assignment = torch.full((num_frames * tokens_per_frame,), -1, dtype=torch.int32)
        assignment[positions] = torch.arange(budget, dtype=torch.int32)
        self.register_buffer("positions", torch.tensor(positions, dtype=torch.int32), persistent=False)
        self.register_buffer("assignment", assignment.reshape(num_frames, tokens_per_frame), persistent=False)

    def plan(self, features: Features) -> Plan:
        return Plan(self.positions, self.assignment)

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.reshape(-1, x.shape[-1]).index_select(0, plan.positions)
