"""What a scene's story was so far, as dense labels: what questions of two steps ask for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevtc.eval.world_questions import SIDES, neighbours
from edgevtc.eval.world_scene import Scene, Thing
from edgevtc.eval.world_words import COLORS, SHAPES

__all__ = ["BESIDE_CLASSES", "HISTORY_CLASSES", "SPEEDS", "beside_labels", "history_labels", "speed_label"]

_IGNORE = -1
#: Per thing: colour and shape of what was on each side of it at the last flash; 0 for nothing.
BESIDE_CLASSES = {
    f"{side.replace(' ', '_')}_{what}": number for side in SIDES for what, number in (("color", 9), ("shape", 6))
}
#: Per frame: colour of the last thing that left; colour of the clearly fastest mover; what happened since the last
#: flash, and what before it. 0 is nothing.
HISTORY_CLASSES = {"gone": 9, "fastest": 9, "since": 26, "before": 27}
_SEVERAL, _NO_FLASH = 25, 26
#: Classes of speed, each a quarter faster than the one before.
SPEEDS = 8


def speed_label(thing: Thing) -> int:
    """Class of a mover's speed; 1.3 px a tick and slower are 0."""
    return int(np.clip(np.log(max(thing.speed, 1.3) / 1.3) / np.log(1.25), 0, SPEEDS - 1))


def beside_labels(scene: Scene) -> list[dict[str, NDArray[np.int64]]]:
    """For each thing `BESIDE_CLASSES` [T]; ignored before the first flash and where the answer is not clear."""
    labels = [{name: np.full(scene.ticks, _IGNORE) for name in BESIDE_CLASSES} for _ in scene.things]
    for flash in scene.flashes:
        later = np.arange(scene.ticks) >= flash.leaves - 1
        for label in labels:
            for values in label.values():
                values[later] = _IGNORE
        for thing, side, answer in neighbours(scene, np.arange(flash.enters, flash.leaves)):
            color, shape = (0, 0) if answer == "nothing" else _classes(answer)
            label = labels[scene.things.index(thing)]
            label[f"{side.replace(' ', '_')}_color"][later] = color
            label[f"{side.replace(' ', '_')}_shape"][later] = shape
    return labels


def history_labels(scene: Scene) -> dict[str, NDArray[np.int64]]:
    """`HISTORY_CLASSES`, [T] each."""
    total = scene.ticks
    labels = {name: np.zeros(total, np.int64) for name in HISTORY_CLASSES}
    for thing in sorted(scene.things, key=lambda thing: thing.leaves):
        labels["gone"][thing.leaves :] = thing.last_color + 1
    for tick in range(total):
        labels["fastest"][tick] = _fastest(scene, tick)
        last = max((index for index, flash in enumerate(scene.flashes) if flash.enters <= tick), default=None)
        if last is None:
            labels["since"][tick], labels["before"][tick] = _happened(scene, -1, tick), _NO_FLASH
            continue
        previous = scene.flashes[last - 1].leaves if last else -1
        labels["since"][tick] = _happened(scene, scene.flashes[last].leaves, tick)
        labels["before"][tick] = _happened(scene, previous, scene.flashes[last].enters - 1)
    return labels


def _classes(name: str) -> tuple[int, int]:
    color, shape = name.split()
    return COLORS.index(color) + 1, SHAPES.index(shape) + 1


def _fastest(scene: Scene, tick: int) -> int:
    movers = [thing for thing in scene.things if thing.heading and thing.onset + 2 <= tick]
    if len(movers) < 2:
        return 0
    fast, slower = sorted(movers, key=lambda thing: -thing.speed)[:2]
    return fast.color + 1 if fast.speed >= 1.4 * slower.speed else 0


def _happened(scene: Scene, start: int, end: int) -> int:
    """The only event with start < tick ≤ end: 1 + colour where a thing appeared, 9 + where it left, 17 + changed."""
    found = []
    for thing in scene.things:
        events = [(thing.enters, 1 + thing.color), (thing.leaves, 9 + thing.last_color)]
        if thing.changes is not None:
            events.append((thing.changes, 17 + thing.color))
        found += [kind for tick, kind in events if start < tick <= end and 0 < tick < scene.ticks]
    return 0 if not found else found[0] if len(found) == 1 else _SEVERAL
