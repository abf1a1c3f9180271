"""A synthetic, surveillance-like world: seeded scenes with their pictures, questions, answers and dense labels.

Example:
    >>> world = World("dev", seed=0)
    >>> sample = world.sample(limit=8)
    >>> sample.frames.shape
    (16, 96, 96, 3)
    >>> sample.questions[0].text, sample.questions[0].answer  # doctest: +SKIP
    ('which way does the red object move', 'left')
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevtc.errors import ConfigError, choices
from edgevtc.eval.world_labels import GRID, scene_labels
from edgevtc.eval.world_questions import Question, QuestionMaker
from edgevtc.eval.world_render import NOISE_LEVELS, Renderer
from edgevtc.eval.world_scene import HELD_OUT, SIDE, Kind, Scene, SceneMaker

__all__ = ["SPLITS", "Sample", "World"]

#: Split → its range of generator seeds. Choices are made on dev alone; test is looked at for results.
SPLITS = {"train": range(0, 1_000_000), "dev": range(1_000_000, 1_100_000), "test": range(2_000_000, 2_100_000)}


@dataclass(frozen=True)
class Sample:
    """One scene: uint8 frames [T, 96, 96, 3], questions, and what to group results by."""

    scene: Scene
    frames: NDArray[np.uint8]
    questions: list[Question]

    @property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Dense labels, see :func:`edgevtc.eval.world_labels.scene_labels`."""
        return scene_labels(self.scene)

    @property
    def slices(self) -> dict[str, str]:
        """Camera (static, panned), sensor noise (its standard deviation), number of things, held-out combinations."""
        things = self.scene.things
        novel = any((color, t.shape) in HELD_OUT for t in things for color in (t.color, t.last_color))
        return {
            "camera": "panned" if self.scene.panned else "static",
            "noise": str(NOISE_LEVELS[self.scene.noise]),
            "things": str(len(things)),
            "combinations": "held out" if novel else "seen",
        }


class World:
    """An endless, seeded stream of samples.

    Args:
        split: A key of :data:`SPLITS`. Every seed of every split has textures of its own; training scenes lack the
            held-out combinations of colour and shape, and training questions include short prompts.
        seed: 0 ≤ seed < size of the split. Equal split and seed give equal samples.
        phrasings: Use only the first so many wordings of each question type (default: all).

    Raises:
        ConfigError: Unknown split, or seed out of range.
    """

    def __init__(self, split: str, seed: int = 0, *, phrasings: int | None = None, textures: int = 48) -> None:
        if split not in SPLITS:
            raise ConfigError(f"there is no split {split!r}: use {choices(SPLITS)}")
        seeds = SPLITS[split]
        if not 0 <= seed < len(seeds):
            raise ConfigError(f"seed {seed} is outside the {split} split: use 0 to {len(seeds) - 1}")
        self.split, self.seed = split, seed
        picture, scene, question = np.random.default_rng(seeds[seed]).spawn(3)
        train = split == "train"
        self.renderer = Renderer(picture, textures)
        self._scenes = SceneMaker(scene, train=train, textures=textures)
        self._questions = QuestionMaker(question, train=train, phrasings=phrasings)

    def scene(self, kind: Kind = "video") -> Scene:
        """The next scene, with at least one thing."""
        while not (scene := self._scenes.make(kind)).things:
            pass
        return scene

    def questions(self, scene: Scene, limit: int = 16) -> list[Question]:
        """At most `limit` questions about a scene."""
        return self._questions.ask(scene, limit)

    def sample(self, kind: Kind = "video", limit: int = 16, *, render: bool = True) -> Sample:
        """The next scene with frames and questions; without `render` the frames are empty [0, 96, 96, 3]."""
        scene = self.scene(kind)
        frames = self.renderer.frames(scene) if render else np.zeros((0, SIDE, SIDE, 3), np.uint8)
        return Sample(scene, frames, self.questions(scene, limit))

    def crowd(
        self, number: int, side: int = SIDE, grid: int = GRID
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]]:
        """Single frames [number, side, side, 3] packed with things, stars and signs, with their cell labels stacked."""
        scenes = [self._scenes.crowd() for _ in range(number)]
        frames = np.concatenate([self.renderer.frames(scene, size=(side, side)) for scene in scenes])
        labels = [scene_labels(scene, grid) for scene in scenes]
        return frames, {name: np.concatenate([label[name] for label in labels]) for name in labels[0]}
