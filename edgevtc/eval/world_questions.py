"""Questions about a scene, with answers that are unambiguous in the model's frames.

What is within two ticks is not ordered, who changes colour is not named by it, positions near the middle lines have
no quadrant: such questions are not asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevtc.eval.world_phrases import ABSENT, PHRASES
from edgevtc.eval.world_scene import HELD_OUT, SIDE, Flash, Scene, Thing
from edgevtc.eval.world_words import CHANGES, COLORS, DIGITS, HEADINGS, SHAPES, SIZES

__all__ = ["SIDES", "Question", "QuestionMaker", "neighbours", "what_happened"]

SIDES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
#: Types that few scenes allow: training asks them first.
_RARE = frozenset(
    {"beside", "between", "earlier", "fastest", "faster", "gone", "last", "left", "moved_first", "near", "nth", "was"}
)
_NTH = ("first", "second", "third")


@dataclass(frozen=True)
class Question:
    """A question of a type, as phrased; `held_out` if it is about a combination that training never shows."""

    type: str
    text: str
    answer: str
    phrasing: int = 0
    held_out: bool = False


class QuestionMaker:
    """Asks about scenes. `train` adds the prompts and leaves out held-out combinations; `phrasings` limits wording."""

    def __init__(self, rng: np.random.Generator, *, train: bool, phrasings: int | None = None) -> None:
        self._rng, self._train, self._phrasings = rng, train, phrasings

    def ask(self, scene: Scene, limit: int) -> list[Question]:
        """At most `limit` questions in random order, one of each type before the second of any."""
        asked: list[Question] = []
        candidates = list(self._candidates(scene))
        if self._train:
            candidates += self._prompts(scene)
        order = self._rng.permutation(len(candidates))
        rank: Counter[str] = Counter()
        ranked = []
        for index in order:
            ranked.append((rank[candidates[index].type], candidates[index]))
            rank[candidates[index].type] += 1
        rare = _RARE if self._train else ()
        ranked.sort(key=lambda entry: (entry[0], entry[1].type not in rare))
        texts: set[str] = set()
        for _, question in ranked:
            if question.text not in texts:
                texts.add(question.text)
                asked.append(question)
        return asked[:limit]

    def _phrase(self, form: str, answer: str, kind: str = "", held_out: bool = False, **slots: str) -> Question:
        choices = PHRASES[form][: self._phrasings]
        phrasing = int(self._rng.integers(len(choices)))
        return Question(kind or form, choices[phrasing].format(**slots), answer, phrasing, held_out)

    def _candidates(self, scene: Scene) -> Iterator[Question]:
        yield from self._about_things(scene)
        yield from self._about_all(scene)
        yield from self._about_flashes(scene)
        yield from self._about_absent(scene)
        if scene.kind == "video":
            yield from self._about_movers(scene)
            yield from self._beside(scene)
            yield from self._between(scene)
            yield from self._left(scene)

    def _about_things(self, scene: Scene) -> Iterator[Question]:
        unique = _unique_shapes(scene)
        for thing in scene.things:
            name, shape = COLORS[thing.color], SHAPES[thing.shape]
            held_out = (thing.color, thing.shape) in HELD_OUT
            length = thing.leaves - thing.enters
            if thing.new_color is not None:
                if thing.shape in unique:
                    yield self._phrase("was", name, shape=shape, moment="at first", held_out=held_out)
                    yield self._phrase("was", COLORS[thing.last_color], shape=shape, moment="at the end")
                continue
            if thing.shape in unique:
                yield self._phrase("color", name, shape=shape, held_out=held_out)
                if scene.kind != "image" and self._rng.random() < 0.1:
                    yield self._phrase("was", name, shape=shape, moment="at first", held_out=held_out)
            yield self._phrase("shape", shape, color=name, held_out=held_out)
            moving = length if not thing.heading else thing.leaves - thing.onset
            if scene.kind == "clip" or (scene.kind == "video" and length >= 6 and moving >= 4):
                yield self._phrase("direction", HEADINGS[thing.heading], color=name, held_out=held_out)
            end = thing.at(np.array([thing.leaves - 1]))[0]
            if (quadrant := _quadrant(*end)) is not None:
                yield self._phrase("where", quadrant, color=name, held_out=held_out)
            if thing.new_size is None:
                yield self._phrase("size", SIZES[thing.size], color=name, held_out=held_out)

    def _about_all(self, scene: Scene) -> Iterator[Question]:
        if 1 <= len(scene.things) <= 6:
            yield self._phrase("count", DIGITS[len(scene.things)])
        for _ in range(1 if scene.kind == "video" else 3):
            yield from self._exist(scene)
        kinds = {thing.new_color is not None for thing in scene.things if thing.changes is not None}
        if scene.kind != "image" and len(kinds) < 2:
            yield self._phrase("change", CHANGES[2] if not kinds else CHANGES[0] if kinds.pop() else CHANGES[1])
        if scene.sign:
            yield self._phrase("digit", DIGITS[scene.sign.digit])
        if scene.kind != "video" or len(scene.things) < 2:
            return
        named = [thing for thing in scene.things if thing.new_color is None]
        pairs = [(a, b) for a in named for b in named if b.enters - a.enters >= 2]
        for index in self._rng.permutation(len(pairs))[:3]:
            early, late = pairs[index]
            a, b = (early, late) if self._rng.random() < 0.5 else (late, early)
            yield self._phrase("order", COLORS[early.color], color=COLORS[a.color], other=COLORS[b.color])
        newest, before = sorted(scene.things, key=lambda thing: -thing.enters)[:2]
        if newest.enters - before.enters >= 2 and newest.new_color is None:
            yield self._phrase("last", _name(newest), held_out=(newest.color, newest.shape) in HELD_OUT)

    def _exist(self, scene: Scene) -> Iterator[Question]:
        """Half yes; the others keep one attribute of something that is there."""
        if not scene.things:
            return
        r = self._rng
        thing = scene.things[int(r.integers(len(scene.things)))]
        pair, answer = (thing.color, thing.shape), "yes"
        if r.random() < 0.5:
            present = {(c, o.shape) for o in scene.things for c in (o.color, o.last_color)}
            options = [(thing.color, s) for s in range(5)] * 2 + [(c, thing.shape) for c in range(8)]
            options = [p for p in options if p not in present and not (self._train and p in HELD_OUT)]
            if not options:
                return
            pair, answer = options[int(r.integers(len(options)))], "no"
        yield self._phrase("exist", answer, color=COLORS[pair[0]], shape=SHAPES[pair[1]], held_out=pair in HELD_OUT)

    def _about_flashes(self, scene: Scene) -> Iterator[Question]:
        r, flashes, video = self._rng, scene.flashes, scene.kind == "video"
        if flashes and r.random() < (0.43 if video else 0.35):
            yield self._phrase("flash", "yes")
        elif not flashes and (video or r.random() < 0.5):
            yield self._phrase("flash", "no")
        if len(flashes) == 1:
            yield self._phrase("needle", COLORS[flashes[0].color])
            if video:
                third = sum(flashes[0].enters >= part * scene.ticks // 3 for part in (1, 2))
                yield self._phrase("when", ("start", "middle", "end")[third])
        if not video:
            return
        if r.random() < (0.4, 0.3, 0.67, 1.0)[len(flashes)]:
            yield self._phrase("flashes", DIGITS[len(flashes)])
        if len(flashes) > 1:
            for index, flash in enumerate(flashes):
                last = index == len(flashes) - 1
                name = "last" if last and r.random() < 0.5 else _NTH[index]
                yield self._phrase("nth", COLORS[flash.color], nth=name)

    def _about_absent(self, scene: Scene) -> Iterator[Question]:
        """One question about what is not there."""
        r = self._rng
        colors = {c for thing in scene.things for c in (thing.color, thing.last_color)}
        color = COLORS[int(r.choice([c for c in range(8) if c not in colors]))] if len(colors) < 8 else None
        shapes = [s for s in range(5) if s not in {thing.shape for thing in scene.things}]
        options: list[tuple[str, dict[str, str]]] = []
        if color:
            options += [("shape", {"color": color}), ("where", {"color": color}), ("size", {"color": color})]
            options += [("direction", {"color": color})] if scene.kind != "image" else []
        if shapes:
            options += 2 * [("color", {"shape": SHAPES[int(r.choice(shapes))]})]
        if scene.sign is None:
            options += [("digit", {})]
        if not scene.flashes:
            options += 2 * [("needle", {})]
            options += 2 * [("when", {})] if scene.kind == "video" else []
        elif scene.kind == "video" and len(scene.flashes) < 3:
            options += 2 * [("nth", {"nth": _NTH[len(scene.flashes)]})]
        if options:
            form, slots = options[int(r.integers(len(options)))]
            yield self._phrase(form, ABSENT, "absent", False, **slots)

    def _about_movers(self, scene: Scene) -> Iterator[Question]:
        movers = [thing for thing in scene.things if thing.heading]
        if len(movers) < 2:
            return
        first, second = sorted(movers, key=lambda thing: thing.onset)[:2]
        if second.onset - first.onset >= 2 and first.new_color is None:
            yield self._phrase("moved_first", COLORS[first.color])
        fast, slower = sorted(movers, key=lambda thing: -thing.speed)[:2]
        if fast.speed >= 1.4 * slower.speed and fast.new_color is None:
            yield self._phrase("fastest", COLORS[fast.color])

    def _beside(self, scene: Scene) -> Iterator[Question]:
        if len(scene.flashes) != 1:
            return
        flash = scene.flashes[0]
        options = neighbours(scene, np.arange(flash.enters, flash.leaves))
        options = [option for option in options if option[0].new_color is None]
        found = [option for option in options if option[2] != "nothing"]
        for index in self._rng.permutation(len(found))[:2]:
            yield self._beside_question(*found[index])
        empty = [option for option in options if option[2] == "nothing"]
        if empty and self._rng.random() < 0.25:
            yield self._beside_question(*empty[int(self._rng.integers(len(empty)))])

    def _beside_question(self, thing: Thing, side: str, answer: str) -> Question:
        return self._phrase("beside", answer, side=side, color=COLORS[thing.color], shape=SHAPES[thing.shape])

    def _between(self, scene: Scene) -> Iterator[Question]:
        flashes = scene.flashes
        spans: list[tuple[str, Flash | None, Flash | None]] = []
        if len(flashes) == 1:
            spans = [("before the flash", None, flashes[0]), ("after the flash", flashes[0], None)]
        elif len(flashes) == 2:
            spans = [("between the flashes", *flashes)]
        elif len(flashes) == 3:
            spans = [("after the last flash", flashes[2], None), ("before the first flash", None, flashes[0])]
        for span, start, end in spans:
            answer = what_happened(scene, start, end)
            if answer is not None and (answer != "nothing" or self._rng.random() < 0.1):
                yield self._phrase("between", answer, span=span)

    def _left(self, scene: Scene) -> Iterator[Question]:
        gone = [thing for thing in scene.things if thing.leaves < scene.ticks]
        if len(gone) == 1 and gone[0].new_color is None:
            yield self._phrase("left", COLORS[gone[0].color])
        elif not gone and self._rng.random() < 0.15:
            yield self._phrase("left", "nothing")

    def _prompts(self, scene: Scene) -> Iterator[Question]:
        unique = _unique_shapes(scene)
        for thing in scene.things:
            name, shape = COLORS[thing.last_color], SHAPES[thing.shape]
            end = thing.at(np.array([thing.leaves - 1]))[0]
            if scene.kind == "image":
                place = _quadrant(*end)
                yield Question("caption", name, f"{shape} {place}" if place else shape)
                yield Question("measure", f"{name} size", SIZES[thing.size])
                if thing.shape in unique:
                    yield Question("caption", shape, name)
                continue
            if thing.new_color is None:
                moves = f" {HEADINGS[thing.heading]}" if thing.leaves - thing.onset >= 4 else ""
                yield Question("caption", f"the {name}", f"{shape}{moves}")
            if thing.leaves - thing.enters >= 4:
                kind = 0 if thing.new_color is not None else 1 if thing.new_size is not None else 2
                yield Question("changed", f"{name} changed", CHANGES[kind])
                if thing.shape in unique:
                    yield Question("changed", f"{shape} changed", CHANGES[kind])
                if kind < 2:
                    yield Question("before", f"before {name}", (COLORS[thing.color], SIZES[thing.size])[kind])
        if scene.kind == "image":
            yield from self._near(scene, np.zeros(1, int))
        elif scene.kind == "video":
            if len(scene.flashes) == 1:
                yield from self._near(scene, np.arange(scene.flashes[0].enters, scene.flashes[0].leaves))
            yield from self._compared(scene)
            yield from self._last_seen(scene)
        if scene.sign:
            yield Question("glyph", "sign", DIGITS[scene.sign.digit])

    def _near(self, scene: Scene, ticks: NDArray[np.integer]) -> Iterator[Question]:
        for thing, side, near in neighbours(scene, ticks):
            if thing.new_color is None and (near != "nothing" or self._rng.random() < 0.2):
                yield Question("near", f"{side} {COLORS[thing.color]}", near)

    def _compared(self, scene: Scene) -> Iterator[Question]:
        """Of each thing whether it is gone, of pairs which moved first and which moves faster."""
        named = [thing for thing in scene.things if thing.new_color is None]
        for thing in named:
            yield Question("gone", f"{COLORS[thing.color]} gone", "yes" if thing.leaves < scene.ticks else "no")
        movers = [thing for thing in named if thing.heading]
        for a in movers:
            for b in movers:
                pair = f"{COLORS[a.color]} or {COLORS[b.color]}"
                if abs(a.onset - b.onset) >= 2:
                    yield Question("earlier", f"{pair} moved first", COLORS[min(a, b, key=_onset).color])
                if a is not b and max(a.speed, b.speed) >= 1.4 * min(a.speed, b.speed):
                    yield Question("faster", f"{pair} fastest", COLORS[max(a, b, key=_speed).color])

    def _last_seen(self, scene: Scene) -> Iterator[Question]:
        """Where each thing was last seen that crossed a middle line and left: no frame but that one tells."""
        for thing in scene.things:
            first, last = (_quadrant(*at) for at in thing.at(np.array([thing.enters, thing.leaves - 1])))
            if thing.new_color is None and thing.leaves < scene.ticks and last is not None and last != first:
                yield Question("position", f"{COLORS[thing.color]} position", last)


def _onset(thing: Thing) -> int:
    return thing.onset


def _speed(thing: Thing) -> float:
    return thing.speed


def _name(thing: Thing) -> str:
    return f"{COLORS[thing.color]} {SHAPES[thing.shape]}"


def _unique_shapes(scene: Scene) -> set[int]:
    counts = Counter(thing.shape for thing in scene.things)
    return {shape for shape, number in counts.items() if number == 1}


def _quadrant(x: float, y: float) -> str | None:
    """Quadrant of a point, None within five pixels of a middle line."""
    if min(abs(x - SIDE / 2), abs(y - SIDE / 2)) <= 5:
        return None
    return ("top " if y < SIDE / 2 else "bottom ") + ("left" if x < SIDE / 2 else "right")


def neighbours(scene: Scene, ticks: NDArray[np.integer]) -> list[tuple[Thing, str, str]]:
    """What is beside each thing during the ticks [F]: (thing, side, answer) wherever the answer is clear.

    The answer names the only thing in the quarter of the picture on that side, at least 8 px away all the time; it is
    "nothing" if the whole half on that side is empty.
    """
    things = scene.things
    places = np.stack([thing.at(ticks) for thing in things])
    visible = np.stack([thing.visible(ticks) for thing in things])
    offsets = places[None] - places[:, None]
    other = ~np.eye(len(things), dtype=bool) & visible.any(1)
    clear = []
    for side, direction in SIDES.items():
        along, across = offsets @ np.array(direction), np.abs(offsets @ np.array(direction[::-1]))
        inside = other & visible.all(1) & ((along >= 8) & (along >= 1.25 * across)).all(2)
        unclear = other & ~inside & (along > np.maximum(0.8 * across, 0)).any(2)
        empty = ~other | (along <= -2).all(2)
        for index in np.flatnonzero(visible.all(1) & ~unclear.any(1)):
            found = np.flatnonzero(inside[index])
            if len(found) == 1 and things[found[0]].new_color is None:
                clear.append((things[index], side, _name(things[found[0]])))
            elif empty[index].all():
                clear.append((things[index], side, "nothing"))
    return clear


def what_happened(scene: Scene, start: Flash | None, end: Flash | None) -> str | None:
    """The only appearance, departure or change between two flashes (None: the ends of the video), "nothing" if there is
    none; None where there are several, or one within a tick of a flash."""
    events = []
    for thing in scene.things:
        if thing.enters > 0:
            events.append((thing.enters, f"{COLORS[thing.color]} appeared"))
        if thing.leaves < scene.ticks:
            events.append((thing.leaves, f"{COLORS[thing.last_color]} left"))
        if thing.changes is not None:
            events.append((thing.changes, f"{COLORS[thing.color]} changed"))
    inside = []
    for tick, event in events:
        after = start is None or tick > start.leaves
        before = end is None or tick < end.enters
        if after and before:
            inside.append(event)
        elif (start is not None and start.enters <= tick <= start.leaves) or (
            end is not None and end.enters <= tick <= end.leaves
        ):
            return None
    if len(inside) > 1:
        return None
    return inside[0] if inside else "nothing"
