"""`none`, `uniform`, `frames` and `random`: selections that do not look at the video."""

from __future__ import annotations

from abc import abstractmethod
from random import Random as Generator
from typing import Any

import torch
from torch import Tensor

from edgevtc.compressors.base import Compressor, Features, Plan
from edgevtc.compressors.blocks.frames import even_shares, even_steps
from edgevtc.errors import ConfigError
from edgevtc.methods import baselines

__all__ = ["Frames", "KeepAll", "Random", "Uniform"]

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
        every = torch.arange(self.budget, dtype=torch.int32, device=features.frame_tokens.device)
        return Plan(every, every.reshape(self.num_frames, self.tokens_per_frame))

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.reshape(self.budget, x.shape[-1])


class _Blind(Compressor):
    """A selection that is the same for every clip."""

    positions: Tensor
    assignment: Tensor

    def __init__(self, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> None:
        super().__init__(num_frames, tokens_per_frame, budget, **config)
        positions = self.choose()
        assignment = torch.full((num_frames * tokens_per_frame,), -1, dtype=torch.int32)
        assignment[positions] = torch.arange(budget, dtype=torch.int32)
        self.register_buffer("positions", torch.tensor(positions, dtype=torch.int32), persistent=False)
        self.register_buffer("assignment", assignment.reshape(num_frames, tokens_per_frame), persistent=False)

    @abstractmethod
    def choose(self) -> list[int]:
        """The B raster indices to keep, ascending."""

    def plan(self, features: Features) -> Plan:
        return Plan(self.positions, self.assignment)

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.reshape(-1, x.shape[-1]).index_select(0, plan.positions)


class Uniform(_Blind):
    """Even steps over time and, in a frame, over the raster; the start moves by the golden ratio from frame to frame.

    Without the moving start, a step that divides the grid's width would keep the same columns in every frame.
    """

    spec = baselines.UNIFORM

    def choose(self) -> list[int]:
        positions = []
        for frame, share in enumerate(even_shares(self.budget, self.num_frames)):
            start = (0.5 + frame * GOLDEN_RATIO) % 1
            positions += [frame * self.tokens_per_frame + i for i in even_steps(self.tokens_per_frame, share, start)]
        return positions


class Frames(_Blind):
    """⌈B/N⌉ frames at even steps over time, whole but for the last, whose tokens are at even steps over the raster.

    It is what sampling fewer frames would cost and see. A budget below N is one frame, the middle one.
    """

    spec = baselines.FRAMES

    def choose(self) -> list[int]:
        size = self.tokens_per_frame
        frames = even_steps(self.num_frames, -(-self.budget // size))
        in_last = self.budget - (len(frames) - 1) * size
        whole = [frame * size + i for frame in frames[:-1] for i in range(size)]
        return whole + [frames[-1] * size + i for i in even_steps(size, in_last)]


class Random(_Blind):
    """Tokens drawn at random without replacement, once: the same ones for every clip and on every machine."""

    spec = baselines.RANDOM

    def choose(self) -> list[int]:
        generator = Generator(self.config["seed"])
        # Of Python's generator only the stream of random() is promised to stay as it is.
        keys = [generator.random() for _ in range(self.num_frames * self.tokens_per_frame)]
        return sorted(sorted(range(len(keys)), key=keys.__getitem__)[: self.budget])
