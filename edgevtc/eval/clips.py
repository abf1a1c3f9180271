"""Clips of the world as files: rendered once, kept on disk, with their questions."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgevtc.errors import ConfigError
from edgevtc.eval.world import Sample, World
from edgevtc.eval.world_questions import Question
from edgevtc.eval.world_video import write_mp4

__all__ = ["EVAL_SPLITS", "FORMS", "Clips", "Form"]

#: Splits to examine on; training scenes are none.
EVAL_SPLITS = ("dev", "test")

#: Clips that stand for all in the digests.
_DIGESTED = 16


@dataclass(frozen=True)
class Form:
    """What kind of file a scene becomes; its whole time is stretched over the file."""

    width: int
    height: int
    fps: int
    seconds: float

    @property
    def length(self) -> str:
        """The slice of clip lengths it belongs to."""
        return "4 to 6 s" if self.seconds <= 6 else "8 to 10 s" if self.seconds <= 10 else "20 to 60 s"


#: Video i has form i modulo their number: 16 to 600 frames, square and oblong, also much longer than a model's frames.
FORMS = (
    Form(192, 192, 4, 4.0),
    Form(384, 384, 8, 6.0),
    Form(320, 240, 25, 10.0),
    Form(224, 160, 30, 20.0),
    Form(640, 360, 15, 5.0),
    Form(256, 192, 10, 60.0),
    Form(480, 640, 10, 8.0),
)


class Clips:
    """The clips of a split in a fixed order: clip i is the same whatever was asked for before it.

    Args:
        split: One of :data:`EVAL_SPLITS`.
        seed: Seed of the world.
        questions: Most questions a clip.
        folder: Where the files are kept, in a folder of their own for each split, seed and version of the world.

    Raises:
        ConfigError: Fewer than one question, or a seed outside the split.
    """

    def __init__(self, split: str, seed: int, questions: int, folder: Path) -> None:
        if questions < 1:
            raise ConfigError(f"{questions} questions a video is not valid: give 1 or more")
        self._world, self._limit = World(split, seed), questions
        self._samples: list[Sample] = []
        scenes = [asdict(self.sample(index).scene) for index in range(_DIGESTED)]
        looks = hashlib.sha256(self._world.renderer.textures.tobytes()).hexdigest()
        self._pictures = digest([scenes, looks, [asdict(form) for form in FORMS]])
        self._folder = folder / f"{split}-{seed}-{self._pictures[:12]}"

    def sample(self, index: int) -> Sample:
        """Scene and questions of a clip, without frames."""
        while len(self._samples) <= index:
            self._samples.append(self._world.sample(limit=self._limit, render=False))
        return self._samples[index]

    def questions(self, index: int) -> list[Question]:
        """The questions about a clip."""
        return self.sample(index).questions

    @staticmethod
    def form(index: int) -> Form:
        """The kind of file a clip is."""
        return FORMS[index % len(FORMS)]

    def path(self, index: int) -> Path:
        """Where the clip's file stands, or will."""
        return self._folder / f"{index:05d}.mp4"

    def check(self, indices: Iterable[int]) -> None:
        """Make sure, before any work is done, that :meth:`file` can give these clips.

        A folder that holds them all need not be writable.

        Raises:
            ConfigError: One is missing, and the folder cannot be made or written to.
        """
        if all(self.path(index).exists() for index in indices):
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise self._unusable(error) from None

    def file(self, index: int) -> Path:
        """The clip's H.264 file, written when it is first asked for.

        Raises:
            ConfigError: It cannot be written.
        """
        path, form = self.path(index), self.form(index)
        if not path.exists():
            scene, size = self.sample(index).scene, (form.width, form.height)
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                write_mp4(path, scene, self._world.renderer, size=size, fps=form.fps, seconds=form.seconds)
            except OSError as error:
                raise self._unusable(error) from None
        return path

    def slices(self, index: int) -> dict[str, str]:
        """What results of the clip are grouped by."""
        return {**self.sample(index).slices, "length": self.form(index).length}

    def digest(self) -> str:
        """SHA-256 over the first clips' pictures and questions: another version of the world shows itself in it."""
        asked = [[asdict(question) for question in self.questions(index)] for index in range(_DIGESTED)]
        return digest([self._pictures, asked])

    def _unusable(self, error: OSError) -> ConfigError:
        reason = (error.strerror or "unknown").lower()
        return ConfigError(f"{self._folder} cannot be used ({reason}): choose another --clips")


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=float).encode()).hexdigest()
