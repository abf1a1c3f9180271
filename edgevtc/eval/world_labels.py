"""Dense labels of a scene, for auxiliary losses: per cell of the token grid, 6×6 or another, and per frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevtc.eval.world_history import (
    BESIDE_CLASSES,
    HISTORY_CLASSES,
    SPEEDS,
    beside_labels,
    history_labels,
    speed_label,
)
from edgevtc.eval.world_scene import SIDE, Scene

__all__ = ["CELL", "CELL_CLASSES", "FRAME_CLASSES", "GRID", "IGNORE", "scene_labels"]

CELL = 16
GRID = SIDE // CELL
IGNORE = -1
#: Labels [T, G, G] and their number of classes. `color`, `shape`, `size`, `digit` have 0 for nothing there; the rest
#: are IGNORE there. `changed`: 0 not yet, 1 its colour, 2 its size; `birth_…`: as it was when it appeared; the rest are
#: those of :mod:`edgevtc.eval.world_history`.
CELL_CLASSES = {
    "color": 9,
    "shape": 8,
    "size": 3,
    "digit": 11,
    "heading": 5,
    "age": 8,
    "birth_color": 8,
    "birth_size": 2,
    "changed": 3,
    "moved": 2,
    "speed": SPEEDS,
    **BESIDE_CLASSES,
}
#: Labels [T]: things so far, colour of the newest, colour of the last flash so far, flashes so far, kinds of change so
#: far (bits: 1 colour, 2 size), things in the picture.
FRAME_CLASSES = {"things": 9, "newest": 9, "flash": 9, "flashes": 4, "changes": 4, "visible": 9, **HISTORY_CLASSES}
_STAR, _SIGN = 6, 7


def scene_labels(scene: Scene, grid: int = GRID) -> dict[str, NDArray[Any]]:
    """Labels of the model's frames: `CELL_CLASSES` [T, G, G], `FRAME_CLASSES` [T], and `seen` [T, 16], which tells
    whether each colour (8), shape (5), a star, a sign and any thing at all is in the picture. G is `grid`."""
    total, cell = scene.ticks, SIDE / grid
    now = np.arange(total)
    labels: dict[str, NDArray[Any]] = {
        name: np.full((total, grid, grid), 0 if name in ("color", "shape", "size", "digit") else IGNORE, np.int64)
        for name in CELL_CLASSES
    }
    labels |= {name: np.zeros(total, np.int64) for name in FRAME_CLASSES}
    seen = labels["seen"] = np.zeros((total, 16), np.int64)
    told = scene.kind != "image"
    labels |= history_labels(scene) if told else {}
    beside = beside_labels(scene) if told else [{}] * len(scene.things)
    for thing, sides in sorted(zip(scene.things, beside, strict=True), key=lambda pair: pair[0].enters):
        ticks = now[thing.enters : thing.leaves]
        late = thing.changed(ticks)
        color = np.where(late, thing.last_color, thing.color)
        kind = 1 if thing.new_color is not None else 2 if thing.new_size is not None else 0
        column, row = (np.clip(thing.at(ticks), 0, SIDE - 1) // cell).astype(int).T
        cells: dict[str, Any] = {
            "color": color + 1,
            "shape": thing.shape + 1,
            "size": np.where(late, thing.last_size, thing.size) + 1,
            "heading": np.where(ticks - thing.onset >= 3, thing.heading, IGNORE),
            "age": np.minimum(ticks - thing.enters, 7),
            "birth_color": thing.color,
            "birth_size": thing.size,
            "changed": np.where(late, kind, 0),
            "moved": (ticks > thing.onset) & (thing.heading > 0),
            "speed": np.where((ticks - thing.onset >= 3) & (thing.heading > 0), speed_label(thing), IGNORE),
            **{name: values[ticks] for name, values in sides.items()},
        }
        for name, values in cells.items():
            labels[name][ticks, row, column] = values
        labels["things"][thing.enters :] += 1
        labels["visible"][ticks] += 1
        labels["newest"][thing.enters :] = thing.color + 1
        if thing.changes is not None:
            labels["changes"][thing.changes :] |= kind
        seen[ticks, color] = seen[ticks, 8 + thing.shape] = seen[ticks, 15] = 1
    for flash in scene.flashes:
        ticks, place = now[flash.enters : flash.leaves], (int(flash.y // cell), int(flash.x // cell))
        _cover(labels, ticks, place, {"color": flash.color + 1, "shape": _STAR, "size": 2, "digit": 0})
        labels["flash"][flash.enters :] = flash.color + 1
        labels["flashes"][flash.enters :] += 1
        seen[ticks, flash.color] = seen[ticks, 13] = 1
    for sign in scene.signs:
        ticks, place = now[sign.enters : sign.leaves], (int(sign.y // cell), int(sign.x // cell))
        _cover(labels, ticks, place, {"color": IGNORE, "shape": _SIGN, "size": IGNORE, "digit": sign.digit + 1})
        seen[ticks, 14] = 1
    return labels


def _cover(labels: dict[str, NDArray[Any]], ticks: NDArray[Any], place: tuple[int, int], cell: dict) -> None:
    """What hides the things under it: its own labels, IGNORE for the rest."""
    for name in CELL_CLASSES:
        labels[name][(ticks, *place)] = cell.get(name, IGNORE)
