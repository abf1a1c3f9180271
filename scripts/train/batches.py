"""Endless random training batches from the world, and fixed sets of questions for monitoring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from footage import footage
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from edgevtc.eval.world import SPLITS, Sample, World
from edgevtc.eval.world_labels import CELL, GRID, scene_labels
from edgevtc.eval.world_phrases import PROMPTS
from edgevtc.eval.world_questions import Question
from edgevtc.eval.world_scene import Kind, Scene
from edgevtc.eval.world_words import ANSWER, EOS, QUESTION, encode

#: Samples of a batch, and questions asked of each.
SIZES = {"crowd": 48, "image": 32, "clip": 16, "video": 8}
QUESTIONS = {"crowd": 0, "image": 24, "clip": 14, "video": 26}
_ANSWER = 3
#: Share of the samples seen as a file's reader sees them, not as they are drawn.
FILED = 0.7
#: Types of two steps that few scenes allow, and the share of videos made for one of them.
SELDOM, SELDOM_SHARE = ("beside", "between", "fastest", "left"), 0.4


@dataclass
class Batch:
    """Frames [B, T, H, W, 3]; questions [B, K, Q] and answers [B, K, 3] as ids; the questions' types; labels."""

    kind: str
    frames: Tensor
    questions: Tensor | None = None
    answers: Tensor | None = None
    types: list[list[str]] = field(default_factory=list)
    labels: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        move = [None if part is None else part.to(device) for part in (self.questions, self.answers)]
        labels = {name: value.to(device) for name, value in self.labels.items()}
        return Batch(self.kind, self.frames.to(device), move[0], move[1], self.types, labels)


def encode_questions(asked: list[list[Question]]) -> tuple[Tensor, Tensor]:
    """Ids of questions [B, K, Q], left padded with 0, and of answers [B, K, 3], padded with −100.

    Prompts come without `<a>` and end without `<eos>`.
    """
    most = max(len(questions) for questions in asked)
    texts = [
        [[QUESTION, *encode(q.text), *([] if q.type in PROMPTS else [ANSWER])] for q in questions]
        for questions in asked
    ]
    width = max(len(ids) for row in texts for ids in row)
    questions = torch.zeros(len(asked), most, width, dtype=torch.long)
    answers = torch.full((len(asked), most, _ANSWER), -100)
    for b, row in enumerate(texts):
        for k, ids in enumerate(row):
            question = asked[b][k]
            said = [*encode(question.answer), *([] if question.type in PROMPTS else [EOS])]
            questions[b, k, -len(ids) :] = torch.tensor(ids)
            answers[b, k, : len(said)] = torch.tensor(said)
    return questions, answers


def collate(kind: str, samples: list[Sample], grid: int = GRID) -> Batch:
    """One batch of samples of a kind, with labels for a grid of so many tokens a side."""
    questions, answers = encode_questions([sample.questions for sample in samples])
    labels = [scene_labels(sample.scene, grid) for sample in samples]
    return Batch(
        kind,
        torch.from_numpy(np.stack([sample.frames for sample in samples])),
        questions,
        answers,
        [[question.type for question in sample.questions] for sample in samples],
        {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in labels[0]},
    )


def draw(world: World, kind: Kind, rng: np.random.Generator, grid: int = GRID) -> Sample:
    """A sample of a kind; half of the videos are such that one of the seldom types can be asked."""
    wanted = str(rng.choice(SELDOM)) if kind == "video" and rng.random() < SELDOM_SHARE else None
    while True:
        sample = world.sample(kind, QUESTIONS[kind], render=False)
        if wanted is None or any(question.type == wanted for question in sample.questions):
            return replace(sample, frames=shown(world, sample.scene, rng, grid))


def shown(world: World, scene: Scene, rng: np.random.Generator, grid: int = GRID) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] of a scene: most as a reader of a file of it sees them, the others as drawn."""
    side = grid * CELL
    if rng.random() < FILED:
        return footage(scene, world.renderer, rng, side)
    return world.renderer.frames(scene, size=(side, side))


class Batches(IterableDataset):
    """Batches of kinds drawn by share. Every worker, and every `seed`, has a world of its own."""

    def __init__(self, mix: dict[str, float], seed: int, scale: float = 1.0, grid: int = GRID) -> None:
        self._mix, self._seed, self._scale, self._grid = mix, seed, scale, grid

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        seed = (self._seed * 64 + (worker.id if worker else 0)) % len(SPLITS["train"])
        world, rng = World("train", seed, textures=160), np.random.default_rng([seed, 1])
        kinds = list(self._mix)
        shares = np.array([self._mix[kind] for kind in kinds])
        while True:
            kind = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]
            number = max(1, round(SIZES[kind] * self._scale))
            if kind == "crowd":
                frames, labels = world.crowd(number, self._grid * CELL, self._grid)
                tensors = {name: torch.from_numpy(value)[:, None] for name, value in labels.items()}
                yield Batch(kind, torch.from_numpy(frames)[:, None], labels=tensors)
            else:
                yield collate(kind, [draw(world, kind, rng, self._grid) for _ in range(number)], self._grid)
