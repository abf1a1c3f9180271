"""Scenes: what there is, where it goes and what happens, in continuous time.

Time is measured in *ticks*, the model's frames: a video has 16, and model frame k shows tick k. Whatever switches at
tick k (an object enters, changes, a flash starts) switches at k − ½, so that a longer video sampled uniformly shows
the same sixteen states however its frame times are rounded. Lengths are pixels of a 96×96 picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["HELD_OUT", "RADII", "SIDE", "SIGN_HALF", "TICKS", "Flash", "Kind", "Scene", "SceneMaker", "Sign", "Thing"]

Kind = Literal["video", "clip", "image"]

SIDE = 96
TICKS: dict[Kind, int] = {"video": 16, "clip": 4, "image": 1}
RADII = (5, 9)
SIGN_HALF = (8, 10)
#: (color, shape) pairs that no training scene shows: purple cross, orange ring, cyan triangle, white square.
HELD_OUT = frozenset({(4, 3), (5, 4), (6, 2), (7, 1)})

_MOST = {"video": 6, "clip": 6, "image": 8}
_STEP = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)
_GAP = 2 * RADII[1] + 1
_TRIES = 24

Points = NDArray[Any]


@dataclass(frozen=True)
class Thing:
    """An object, visible in ticks [enters, leaves). Attributes are indices of COLORS, SHAPES, SIZES and HEADINGS."""

    color: int
    shape: int
    size: int
    heading: int
    enters: int
    leaves: int
    onset: int  # tick at which it starts to move
    x: float
    y: float
    speed: float  # px a tick
    changes: int | None = None  # tick
    new_color: int | None = None
    new_size: int | None = None

    @property
    def last_color(self) -> int:
        """Its colour in the end."""
        return self.color if self.new_color is None else self.new_color

    @property
    def last_size(self) -> int:
        """Its size in the end."""
        return self.size if self.new_size is None else self.new_size

    def visible(self, ticks: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether it is in the picture at each of the ticks [F]."""
        return (ticks >= self.enters - 0.5) & (ticks < self.leaves - 0.5)

    def changed(self, ticks: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether it already has its new colour or size at each of the ticks [F]."""
        return ticks >= (np.inf if self.changes is None else self.changes - 0.5)

    def at(self, ticks: NDArray[Any]) -> Points:
        """Its centre [F, 2] (x, y) at the ticks [F], whether visible or not."""
        travelled = self.speed * np.maximum(ticks - self.onset, 0)[:, None]
        return (np.array([self.x, self.y]) + _STEP[self.heading] * travelled).astype(np.float32)


@dataclass(frozen=True)
class Flash:
    """A star that shows up for one or two ticks."""

    color: int
    enters: int
    leaves: int
    x: float
    y: float


@dataclass(frozen=True)
class Sign:
    """A plate with a digit."""

    digit: int
    enters: int
    leaves: int
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """A scene. `things` are in no particular order, `flashes` in order of time."""

    kind: Kind
    things: tuple[Thing, ...]
    flashes: tuple[Flash, ...]
    signs: tuple[Sign, ...]  # at most one in scenes that are asked about
    texture: int
    corner: tuple[float, float]  # of the background crop, px
    pan: tuple[float, float]  # px a tick; (0, 0) is a static camera
    brightness: float
    noise: int  # index of NOISE_LEVELS
    seed: int  # of tints and sensor noise

    @property
    def ticks(self) -> int:
        """Number of ticks: model frames."""
        return TICKS[self.kind]

    @property
    def sign(self) -> Sign | None:
        """The sign, if there is one."""
        return self.signs[0] if self.signs else None

    @property
    def panned(self) -> bool:
        """Whether the camera moves."""
        return self.pan != (0.0, 0.0)


class SceneMaker:
    """Draws scenes from a generator; `train` leaves out the held-out combinations of colour and shape."""

    def __init__(self, rng: np.random.Generator, *, train: bool, textures: int) -> None:
        self._rng, self._train, self._textures = rng, train, textures

    def make(self, kind: Kind) -> Scene:
        """A random scene of the kind."""
        r = self._rng
        wanted = int(r.integers(1, _MOST[kind] + 1))
        sign = self._sign(kind)
        for _ in range(4):
            colors = [int(c) for c in r.permutation(8)]
            things = self._things(kind, wanted, colors, sign)
            if len(things) == wanted:
                break
        used = {thing.color for thing in things}
        things = self._changes(kind, things, [color for color in colors if color not in used])
        return Scene(
            kind=kind,
            things=tuple(things),
            flashes=tuple(self._flashes(kind, things, sign)),
            signs=(sign,) if sign else (),
            **self._camera(),
        )

    def crowd(self) -> Scene:
        """A picture with up to sixteen things, stars and signs on a loose grid: dense work for the vision tower."""
        r = self._rng
        full = r.uniform(0.2, 0.9)
        things, flashes, signs = [], [], []
        offset = r.integers(-7, 8, 2)
        for place in r.permutation(16):
            if r.random() > full:
                continue
            size, color = int(r.integers(2)), int(r.integers(8))
            loose = 12 - RADII[size]
            centre = np.array([13 + 23 * (place % 4), 13 + 23 * (place // 4)]) + offset
            x, y = np.clip(centre + r.integers(-loose, loose + 1, 2), RADII[size] - 2, SIDE + 1 - RADII[size]).tolist()
            which = r.random()
            if which < 0.15:
                flashes.append(Flash(color, 0, 1, *np.clip((x, y), 7, SIDE - 8).tolist()))
            elif which < 0.5:
                signs.append(Sign(int(r.integers(10)), 0, 1, *np.clip((x, y), 9, SIDE - 10).tolist()))
            else:
                things.append(Thing(color, self._shape_for(color), size, 0, 0, 1, 0, x, y, 0.0))
        return Scene(
            kind="image",
            things=tuple(things),
            flashes=tuple(flashes),
            signs=tuple(signs),
            **self._camera(),
        )

    def _camera(self) -> dict[str, Any]:
        r = self._rng
        return {
            "texture": int(r.integers(self._textures)),
            "corner": (float(r.uniform(0, 64)), float(r.uniform(0, 64))),
            "pan": (0.0, 0.0) if r.random() < 0.5 else (float(r.uniform(-1.5, 1.5)), float(r.uniform(-1.5, 1.5))),
            "brightness": float(r.uniform(0.75, 1.15)),
            "noise": int(r.integers(4)),
            "seed": int(r.integers(1 << 31)),
        }

    def _shape_for(self, color: int) -> int:
        """A random shape, allowed in combination with the colour."""
        while True:
            shape = int(self._rng.integers(5))
            if not self._train or (color, shape) not in HELD_OUT:
                return shape

    def _things(self, kind: Kind, wanted: int, colors: list[int], sign: Sign | None) -> list[Thing]:
        r, ticks = self._rng, TICKS[kind]
        enters = np.zeros(wanted, int)
        if kind == "video":
            slots = 2 * np.sort(r.permutation(6)[:wanted]) + r.integers(0, 2, wanted)
            enters = r.permutation(np.where(r.random(wanted) < 0.35, 0, slots))
        now = np.arange(ticks, dtype=np.float32)
        things: list[Thing] = []
        taken: list[Points] = []
        if sign is not None:
            place = np.full((ticks, 2), np.inf, np.float32)
            place[sign.enters : sign.leaves] = sign.x, sign.y
            taken.append(place)
        for index in range(wanted):
            start, heading = int(enters[index]), int(r.integers(5))
            leaves = ticks
            if ticks - start >= 9 and r.random() < 0.4:
                leaves = int(r.integers(start + 6, ticks))
            thing = self._place(kind, start, leaves, heading, colors[index], taken, now)
            if thing is not None:
                things.append(thing)
                path = thing.at(now)
                path[~thing.visible(now)] = np.inf
                taken.append(path)
        return things

    def _place(
        self, kind: Kind, start: int, leaves: int, heading: int, color: int, taken: list[Points], now: Points
    ) -> Thing | None:
        """A thing that meets none of the taken paths [T, 2] (infinite where absent), or None after some tries."""
        r = self._rng
        onset, speed = start, 0.0
        if heading and leaves - start > 1:
            if leaves - start >= 8 and r.random() < 0.4:
                onset = int(r.integers(start + 1, leaves - 5))
            steps = leaves - 1 - onset
            speed = float(r.uniform(8, 18) if kind == "clip" else r.uniform(20, max(21, min(60, 6 * steps)))) / steps
        travel = _STEP[heading] * speed * (leaves - 1 - onset)
        low, high = RADII[1] - np.minimum(travel, 0), SIDE - 1 - RADII[1] - np.maximum(travel, 0)
        origins = low + (high - low) * r.random((_TRIES, 2))
        moved = _STEP[heading] * (speed * np.maximum(now[start:leaves] - onset, 0))[:, None]
        paths = origins[:, None] + moved[None]
        free = np.ones(_TRIES, bool)
        for other in taken:
            free &= (np.abs(paths - other[start:leaves]).max(2) >= _GAP).all(1)
        if not free.any():
            return None
        x, y = origins[int(free.argmax())]
        shape = self._shape_for(color)
        return Thing(color, shape, int(r.integers(2)), heading, start, leaves, onset, float(x), float(y), speed)

    def _changes(self, kind: Kind, things: list[Thing], spare: list[int]) -> list[Thing]:
        """Let some things change colour (to one that nobody else has) or size."""
        r = self._rng
        if kind == "image":
            return things
        shortest, margin = (4, 1) if kind == "clip" else (6, 2)
        able = [index for index, thing in enumerate(things) if thing.leaves - thing.enters >= shortest]
        if kind == "clip" or r.random() < 0.4:
            chosen = [index for index in able if r.random() < 0.6]
        else:
            chosen = [int(r.choice(able))] if able and r.random() < 0.7 else []
        things = list(things)
        for index in chosen:
            thing = things[index]
            when = int(r.integers(thing.enters + margin, thing.leaves - margin + 1))
            color = spare.pop() if spare and r.random() < 0.5 else None
            if color is not None and self._train and (color, thing.shape) in HELD_OUT:
                color = None
            size = 1 - thing.size if color is None else None
            things[index] = Thing(**{**vars(thing), "changes": when, "new_color": color, "new_size": size})
        return things

    def _sign(self, kind: Kind) -> Sign | None:
        r, ticks = self._rng, TICKS[kind]
        if r.random() < 0.45:
            return None
        length = int(r.integers(3, ticks + 1)) if kind == "video" else ticks
        start = int(r.integers(0, ticks - length + 1))
        x, y = (float(r.uniform(half + 1, SIDE - 2 - half)) for half in SIGN_HALF)
        return Sign(int(r.integers(10)), start, start + length, x, y)

    def _flashes(self, kind: Kind, things: list[Thing], sign: Sign | None) -> list[Flash]:
        r, ticks = self._rng, TICKS[kind]
        if kind == "video":
            number = int(r.choice(4, p=(0.3, 0.4, 0.18, 0.12)))
            lengths = r.integers(1, 3, number)
            if number == 1:  # a third of the video first, for a balanced "when"
                third = int(r.integers(3))
                starts = [int(r.integers(third * ticks // 3, (third + 1) * ticks // 3 - lengths[0] + 1))]
            else:  # at least two dark ticks between flashes
                room = ticks - int(lengths.sum()) - 2 * (number - 1)
                free = np.sort(r.integers(0, room + 1, number)) if number else np.zeros(0, int)
                starts = [int(free[i] + lengths[:i].sum() + 2 * i) for i in range(number)]
        else:
            number, lengths = int(r.random() < 0.6), np.ones(1, int)
            starts = [int(r.integers(ticks))] * number
        colors = r.permutation(8)
        flashes = []
        for index, start in enumerate(starts):
            place = self._flash_place(kind, start, things, sign)
            if place is not None:
                flashes.append(Flash(int(colors[index]), start, start + int(lengths[index]), *place))
        return flashes

    def _flash_place(self, kind: Kind, tick: int, things: list[Thing], sign: Sign | None) -> tuple[float, float] | None:
        """A place that hides no sign and, where it would hide it for good, no thing; None if there is no room."""
        hidden = [[sign.x, sign.y]] if sign else []
        if kind != "video":
            hidden += [thing.at(np.array([tick]))[0].tolist() for thing in things]
        for _ in range(12):
            x, y = self._rng.uniform(10, SIDE - 11, 2)
            if not hidden or np.abs(np.array(hidden) - (x, y)).max(1).min() >= _GAP:
                return float(x), float(y)
        return None
