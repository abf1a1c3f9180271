"""The contract of a compressor: decide once (`plan`), then reduce any feature stream by that decision (`apply`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edgevtc.compressors.blocks.ranking import histogram
from edgevtc.errors import ConfigError
from edgevtc.methods import MethodSpec, method_key

__all__ = ["Compressor", "Features", "Plan", "is_sound", "without_damage"]

#: Larger magnitudes count as damaged: they would overflow fp16 further on.
LARGEST_TOKEN_VALUE = 6e4


@dataclass
class Features:
    """What the vision side offers a compressor.

    Attributes:
        frame_tokens: [T, N, D] tokens after projector and pooling.
        saliency: [T, N] attention each token received, or None where the method does not ask for it.
        frame_features: [T, Dg] one descriptor a frame, or None.
        keys: [T, N, Dk] keys of the tower's last layer, pooled, or None.
    """

    frame_tokens: Tensor
    saliency: Tensor | None = None
    frame_features: Tensor | None = None
    keys: Tensor | None = None


@dataclass
class Plan:
    """A compressor's decisions about one clip, independent of the features they are applied to.

    Attributes:
        positions: [B] int32 raster indices t·N+n of the output slots, unique, and ascending unless an option of the
            method orders them otherwise.
        assignment: [T, N] int32 output slot each input went into, −1 where it was dropped.
        extra: Tensors of the method's own that its `apply` needs (weights, masks).
        segments: [T] int32 index of the segment each frame belongs to, from 0 and rising; None where the clip was
            not divided.
    """

    positions: Tensor
    assignment: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    segments: Tensor | None = None

    def counts(self) -> Tensor:
        """[B] int32 number of inputs folded into each slot; their sum is T·N minus the dropped ones."""
        return histogram(self.assignment.reshape(-1), self.positions.shape[0])


class Compressor(nn.Module, ABC):
    """A fixed-shape program from T·N visual tokens to exactly B.

    A subclass sets `spec` and writes `plan` and `apply`. Both are traced into an ONNX graph, so every shape is
    a constant of the instance and no Python branch may look at a tensor's values. Decisions are made in float32.

    Args:
        num_frames: T.
        tokens_per_frame: N.
        budget: B, from 1 to T·N.
        retention_ratio: Chooses the row of the paper's hyper-parameter table; B/(T·N) where not given.
        grid_width: Tokens in a row of the frame's grid; √N where not given.
        config: Hyper-parameters by name, see the method's spec.

    Raises:
        ConfigError: The budget does not fit, or a hyper-parameter is unknown or out of range.
    """

    spec: ClassVar[MethodSpec]

    def __init__(
        self,
        num_frames: int,
        tokens_per_frame: int,
        budget: int,
        *,
        retention_ratio: float | None = None,
        grid_width: int | None = None,
        **config: Any,
    ) -> None:
        super().__init__()
        total = num_frames * tokens_per_frame
        if not 1 <= budget <= total:
            raise ConfigError(
                f"method {self.spec.name}: a budget of {budget} tokens does not fit: "
                f"{num_frames} frames of {tokens_per_frame} tokens allow 1 to {total}"
            )
        self.num_frames = num_frames
        self.tokens_per_frame = tokens_per_frame
        self.budget = budget
        self.retention_ratio = retention_ratio if retention_ratio is not None else budget / total
        self.grid_width = grid_width or round(tokens_per_frame**0.5)
        self.config = self.spec.configure(self.retention_ratio, config)
        # With room for every token there is nothing to decide, and no method looks for segments.
        self.segmented = self.spec.segments and budget < total

    @abstractmethod
    def plan(self, features: Features) -> Plan:
        """Decide which tokens stay and which fold into which slot."""

    @abstractmethod
    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]  # nn.Module.apply maps over submodules; there are none here
        """Reduce x [T, N, D] to [B, D] by a plan; linear in x."""

    @property
    def key(self) -> str:
        """What the method at this budget is called wherever there are several, see `method_key`."""
        return method_key(self.spec.name, self.budget)

    @property
    def passes_over_damage(self) -> bool:
        """Whether the program itself keeps damaged tokens from having any effect; else :meth:`features` clears them."""
        return False

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what :meth:`forward` gives, in order; `segments` is there where the method divides the clip."""
        return ("tokens", "positions", "counts", "assignment", *(("segments",) if self.segmented else ()))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Graph form: the inputs named by `spec.needs` → tokens [B, D], positions, counts, assignment, and segments."""
        features = self.features(*inputs)
        plan = self.plan(features)
        outputs = self.apply(plan, features.frame_tokens), plan.positions, plan.counts(), plan.assignment
        if not self.segmented:
            return outputs
        assert plan.segments is not None
        return *outputs, plan.segments

    def features(self, *inputs: Tensor) -> Features:
        """The inputs named by `spec.needs`, without damaged values; a NaN saliency becomes the lowest one."""
        named = dict(zip(self.spec.needs, inputs, strict=True))
        for name, value in named.items():
            if name == "saliency":
                named[name] = torch.where(torch.isnan(value), -LARGEST_TOKEN_VALUE, value.float())
            elif name != "frame_tokens" or not self.passes_over_damage:
                named[name] = without_damage(value)
        return Features(**named)


def is_sound(value: Tensor) -> Tensor:
    """[...] bool for vectors [..., D]; false for those that hold NaN, Inf or a number beyond ±6e4."""
    # Three readings of the values cost less than a mask as large as they are. A back end's maximum may pass over a
    # NaN, its sum never does.
    is_finite = value.sum(-1, dtype=torch.float32).abs() < torch.finfo(torch.float32).max
    return is_finite & (value.amax(-1) <= LARGEST_TOKEN_VALUE) & (value.amin(-1) >= -LARGEST_TOKEN_VALUE)


def without_damage(value: Tensor) -> Tensor:
    """Vectors [..., D]; zeros in place of those that are not sound."""
    return torch.where(is_sound(value)[..., None], value, 0.0)
