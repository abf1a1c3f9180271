"""What a compression method declares about itself, without torch: the name, the paper, the inputs, the parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from edgevtc.errors import ConfigError, choices

__all__ = ["NEEDS", "POSITION_MODES", "MethodSpec", "Parameter", "budget_for", "method_key"]

#: What a compressor may read besides the tokens; the graph inputs of the same names.
NEEDS = ("frame_tokens", "saliency", "frame_features", "keys")

#: RoPE positions the decoder gives to kept tokens: their index in the uncompressed prompt, or 0, 1, 2, …
POSITION_MODES = ("original", "contiguous")


@dataclass(frozen=True)
class Parameter:
    """One hyper-parameter of a method.

    Attributes:
        default: Value where neither the user nor the retention table sets one.
        doc: One line: meaning, unit, and its symbol in the paper.
        choices: Valid values, where they are few.
        low: Smallest valid number, inclusive.
        high: Largest valid number, inclusive.
    """

    default: Any
    doc: str
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None

    def check(self, owner: str, name: str, value: Any) -> Any:
        """Return ``value`` in the default's type, or raise a ConfigError that says what is valid."""
        if self.choices:
            if value not in self.choices:
                raise ConfigError(f"{owner}: {name}={value!r} is not valid: {choices(self.choices)}")
            return value
        kind = type(self.default)
        if kind is bool and isinstance(value, str):
            value = {"true": True, "false": False}.get(value.lower(), value)
        if kind is bool and not isinstance(value, bool):
            raise ConfigError(f"{owner}: {name}={value!r} is not valid: {choices(('true', 'false'))}")
        try:
            number = kind(value)
            valid = math.isfinite(number) and not (kind is int and isinstance(value, float) and value != number)
        except (TypeError, ValueError, OverflowError):
            valid = False
        if not valid:
            what = "whole number" if kind is int else "finite number"
            raise ConfigError(f"{owner}: {name}={value!r} is no {what}: give one {self._range}")
        if (self.low is not None and number < self.low) or (self.high is not None and number > self.high):
            raise ConfigError(f"{owner}: {name}={value!r} is out of range: give a value {self._range}")
        return number

    @property
    def _range(self) -> str:
        low = "-inf" if self.low is None else self.low
        high = "inf" if self.high is None else self.high
        return f"from {low} to {high}"


@dataclass(frozen=True)
class MethodSpec:
    """The torch-free description of a compression method.

    Attributes:
        name: Registered name, as in ``--method``.
        summary: One line on what it keeps.
        paper: Title and identifier, or "" for a baseline.
        needs: Graph inputs in order, from :data:`NEEDS`; ``frame_tokens`` is always the first.
        positions: Position mode of the published method.
        segments: Whether it divides the clip into runs of frames, which its graph then gives as an output.
        parameters: Hyper-parameters by name.
        by_retention: Retention ratio → parameter values of the paper's table; the nearest row is used.
    """

    name: str
    summary: str
    paper: str = ""
    needs: tuple[str, ...] = ("frame_tokens",)
    positions: str = "original"
    segments: bool = False
    parameters: Mapping[str, Parameter] = field(default_factory=lambda: MappingProxyType({}))
    by_retention: Mapping[float, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.needs[:1] != ("frame_tokens",) or not set(self.needs) <= set(NEEDS):
            raise ConfigError(f"method {self.name}: needs start with frame_tokens and are {choices(NEEDS)}")
        if self.positions not in POSITION_MODES:
            raise ConfigError(f"method {self.name}: positions must be {choices(POSITION_MODES)}")

    def configure(self, retention_ratio: float, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The full configuration at a retention ratio: defaults, then the paper's nearest row, then ``overrides``.

        Raises:
            ConfigError: An override names no parameter of this method, or its value is not valid.
        """
        config = {name: parameter.default for name, parameter in self.parameters.items()}
        if self.by_retention:
            config.update(self.by_retention[min(self.by_retention, key=lambda r: (abs(r - retention_ratio), r))])
        for name, value in (overrides or {}).items():
            if name not in self.parameters:
                known = choices(self.parameters) if self.parameters else "it has none"
                raise ConfigError(f"method {self.name} has no parameter {name!r}: {known}")
            config[name] = self.parameters[name].check(f"method {self.name}", name, value)
        return config


def method_key(name: str, budget: int) -> str:
    """Name of a method at a budget in file names, the reference file and records."""
    return f"{name}-b{budget}"


def budget_for(retention_ratio: float, num_frames: int, tokens_per_frame: int) -> int:
    """Tokens kept at a retention ratio: round(r·T·N), half to even, at least 1.

    Raises:
        ConfigError: The ratio is not in (0, 1].
    """
    if not 0 < retention_ratio <= 1:
        raise ConfigError(f"retention ratio {retention_ratio!r} is not valid: give a number above 0 and up to 1")
    return max(1, round(retention_ratio * num_frames * tokens_per_frame))
