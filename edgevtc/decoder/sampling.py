"""From logits to the next token."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from edgevtc.errors import ConfigError

__all__ = ["MarginSampler", "Sampler", "SamplingConfig", "lead"]


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn.

    Attributes:
        temperature: 0 takes the most likely token; above 0 draws.
        top_k: Draw from the k most likely tokens; 0 is no limit.
        top_p: Draw from the smallest set of tokens with this probability mass, in (0, 1].
        seed: Seed of the draw; the same seed gives the same answer.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ConfigError(f"temperature {self.temperature} is not valid: give 0 (greedy) or more")
        if self.top_k < 0:
            raise ConfigError(f"top-k {self.top_k} is not valid: give 0 (no limit) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p {self.top_p} is not valid: give a number above 0 and up to 1")


class Sampler:
    """Draws tokens for one answer by a :class:`SamplingConfig`."""

    def __init__(self, config: SamplingConfig) -> None:
        self._config = config
        self._rng = np.random.default_rng(config.seed)

    def __call__(self, logits: np.ndarray) -> int:
        """The next token id from logits [vocabulary]; ties go to the lower id."""
        config = self._config
        if config.temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits, kind="stable")[: config.top_k or None]
        scaled = logits[order].astype(np.float64) / config.temperature
        mass = np.exp(scaled - scaled[0])
        mass /= mass.sum()
        keep = int(np.searchsorted(np.cumsum(mass), config.top_p - 1e-12)) + 1
        mass = mass[:keep] / mass[:keep].sum()
        return int(order[min(int(np.searchsorted(np.cumsum(mass), self._rng.random(), side="right")), keep - 1)])


class MarginSampler(Sampler):
    """A sampler that keeps account of how close its choices were.

    Args:
        config: How tokens are drawn.
        stop_ids: Ids that end an answer; which of them it is does not matter.

    Attributes:
        margin: Least :func:`lead` of a token drawn so far; infinite before the first.
    """

    def __init__(self, config: SamplingConfig, stop_ids: Collection[int]) -> None:
        super().__init__(config)
        self._stop_ids = stop_ids
        self.margin = float("inf")

    def __call__(self, logits: np.ndarray) -> int:
        """The next token id, as :class:`Sampler` draws it."""
        token = super().__call__(logits)
        self.margin = min(self.margin, lead(logits, self._stop_ids if token in self._stop_ids else (token,)))
        return token


def lead(logits: np.ndarray, token_ids: Collection[int]) -> float:
    """By how much the best of some tokens leads all others, relative to the largest logit; negative where it lags.

    Args:
        logits: [vocabulary].
        token_ids: Those that count as one.
    """
    ids = list(token_ids)
    others = logits.copy()
    others[ids] = -np.inf
    return float(logits[ids].max() - others.max()) / (float(np.abs(logits).max()) or 1.0)
