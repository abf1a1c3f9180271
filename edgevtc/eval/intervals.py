"""Bootstrap over videos for many methods at once: the same videos are drawn for all, so that differences are paired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "Score", "Sheet"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """Share of right answers with a 95 % bootstrap interval over videos, and the number of questions."""

    accuracy: float
    low: float
    high: float
    questions: int

    def __str__(self) -> str:
        return f"{self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.questions}"


class Sheet:
    """Right answers of several methods to the same questions, with the accuracies of resampled sets of videos.

    Questions of a video are answered from the same tokens, so whole videos are drawn.

    Args:
        right: [V, C] number of right answers by video and method.
        asked: [V] number of questions by video; videos without any are left out.
        resamples: R.

    Attributes:
        accuracy: [C] share of right answers.
        resampled: [R, C] the same in each resample.

    Raises:
        ValueError: No questions at all.
    """

    def __init__(self, right: Array, asked: Array, resamples: int = 1000) -> None:
        right, asked = right[asked > 0], asked[asked > 0]
        if not len(asked):
            raise ValueError("there is nothing to score: pass at least one question")
        self.questions = int(asked.sum())
        self.accuracy: Array = right.sum(0) / self.questions
        draws = np.random.default_rng(0).integers(0, len(asked), (resamples, len(asked)))
        flat = draws + len(asked) * np.arange(resamples)[:, None]
        times = np.bincount(flat.ravel(), minlength=flat.size).reshape(flat.shape).astype(np.float64)
        self.resampled: Array = (times @ right) / (times @ asked)[:, None]

    @classmethod
    def by_question(cls, right: Array, videos: Array) -> Sheet:
        """Of answers that were right or not: [Q, C] bool, and the video [Q] of each question."""
        _, places = np.unique(videos, return_inverse=True)
        return cls(np.stack([np.bincount(places, column) for column in right.T], 1), np.bincount(places))

    def score(self, cell: int) -> Score:
        """Accuracy of a method."""
        low, high = interval(self.resampled[:, cell])
        return Score(float(self.accuracy[cell]), low, high, self.questions)

    def difference(self, cell: int, other: int) -> Estimate:
        """By how much a method is more accurate than another."""
        apart = self.resampled[:, cell] - self.resampled[:, other]
        return Estimate(float(self.accuracy[cell] - self.accuracy[other]), *interval(apart))

    def share(self, cell: int, full: int, floor: int | None = None) -> Estimate | None:
        """A method's accuracy as a share of another's, both counted from a third's where one is given.

        None where the whole is not there to have a share of: it is not above the floor beyond its interval.
        """
        below: Array | float = 0.0 if floor is None else self.resampled[:, floor]
        base = 0.0 if floor is None else self.accuracy[floor]
        whole = self.resampled[:, full] - below
        if interval(whole)[0] <= 0 or whole.min() <= 0:
            return None
        shares = (self.resampled[:, cell] - below) / whole
        return Estimate(float((self.accuracy[cell] - base) / (self.accuracy[full] - base)), *interval(shares))


def interval(values: Array) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
