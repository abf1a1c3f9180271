"""Scores of answers about the world: accuracy by what results are grouped by, and what words alone would reach."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgevtc.eval.intervals import Score, Sheet
from edgevtc.eval.world import World
from edgevtc.eval.world_phrases import PROMPTS

__all__ = ["Blind", "Result", "group", "score"]


@dataclass(frozen=True)
class Result:
    """One answered question of one video, with what results are grouped by (`type`, `camera`, `noise`, …)."""

    video: int
    right: bool
    groups: Mapping[str, str]


def score(results: Sequence[Result]) -> Score:
    """Accuracy of results, with the interval of :class:`edgevtc.eval.intervals.Sheet`.

    Raises:
        ValueError: No results.
    """
    if not results:
        raise ValueError("there is nothing to score: pass at least one result")
    right, videos = zip(*((result.right, result.video) for result in results), strict=True)
    return Sheet.by_question(np.array([right]).T, np.array(videos)).score(0)


def group(results: Iterable[Result], name: str) -> dict[str, list[Result]]:
    """Results by their value of a group, in order of appearance; those without it are left out."""
    parts: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if name in result.groups:
            parts[result.groups[name]].append(result)
    return dict(parts)


class Blind:
    """The best that words alone can do: to each question's exact text the answer most frequent for it in training.

    Args:
        videos: Number of training scenes to learn from.
        seed: Seed of the training world.
    """

    def __init__(self, videos: int = 8000, seed: int = 999_999) -> None:
        world = World("train", seed, textures=1)
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for _ in range(videos):
            for question in world.sample(limit=60, render=False).questions:
                if question.type not in PROMPTS:
                    counts[question.text][question.answer] += 1
        self._answers = {text: answers.most_common(1)[0][0] for text, answers in counts.items()}

    def answer(self, text: str) -> str:
        """The majority answer; empty for a question that training never asked."""
        return self._answers.get(text, "")
