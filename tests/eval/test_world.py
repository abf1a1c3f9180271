"""The synthetic world: seeds, splits, and answers that a second, independent reading of the scenes agrees with."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from edgevtc.errors import ConfigError
from edgevtc.eval.world import SPLITS, World
from edgevtc.eval.world_phrases import CHANCE, PHRASES, PROMPTS, TYPES
from edgevtc.eval.world_scene import HELD_OUT, SIDE, TICKS, Scene
from edgevtc.eval.world_words import (
    COLORS,
    DIGITS,
    HEADINGS,
    IMAGE,
    SHAPES,
    VIDEO,
    VOCABULARY,
    VOCABULARY_ROWS,
    decode,
    encode,
)


@pytest.fixture(scope="module")
def dev() -> World:
    return World("dev", 3, textures=4)


def test_equal_seeds_give_equal_samples():
    a, b = (World("dev", 7, textures=4) for _ in range(2))
    for kind in TICKS:
        x, y = a.sample(kind), b.sample(kind)
        assert x.scene == y.scene
        assert x.questions == y.questions
        np.testing.assert_array_equal(x.frames, y.frames)
    assert World("dev", 8, textures=4).scene() != World("dev", 7, textures=4).scene()


def test_not_rendering_changes_neither_scenes_nor_questions():
    a, b = (World("dev", 7, textures=4) for _ in range(2))
    for _ in range(3):
        x, y = a.sample(), b.sample(render=False)
        assert x.scene == y.scene
        assert x.questions == y.questions
        assert len(y.frames) == 0


def test_splits_share_no_seed_and_no_texture():
    seen = [seed for seeds in SPLITS.values() for seed in (seeds.start, seeds.stop - 1)]
    assert seen == sorted(set(seen))
    textures = np.stack([World(split, 0, textures=2).renderer.textures for split in SPLITS])
    flat = textures.reshape(6, -1)
    assert len(np.unique(flat, axis=0)) == 6


@pytest.mark.parametrize(
    ("split", "seed", "message"), [("val", 0, "one of: train, dev, test"), ("dev", 100_000, "use 0 to 99999")]
)
def test_wrong_split_or_seed_is_named(split: str, seed: int, message: str):
    with pytest.raises(ConfigError, match=message):
        World(split, seed)


def test_held_out_combinations_are_never_in_training():
    train, dev = World("train", 1, textures=2), World("dev", 1, textures=2)
    words = {f"{COLORS[c]} {SHAPES[s]}" for c, s in HELD_OUT}
    count: Counter[str] = Counter()
    for world in (train, dev):
        for kind in TICKS:
            for _ in range(60):
                sample = world.sample(kind, render=False)
                pairs = {(c, t.shape) for t in sample.scene.things for c in (t.color, t.last_color)}
                asked = any(word in question.text for question in sample.questions for word in words)
                count[world.split] += bool(pairs & HELD_OUT) + asked + (sample.slices["combinations"] == "held out")
                assert (sample.slices["combinations"] == "held out") == bool(pairs & HELD_OUT)
    assert count["train"] == 0
    assert count["dev"] > 30
    _, labels = train.crowd(60)
    pairs = {(int(c) - 1, int(s) - 1) for c, s in zip(labels["color"].flat, labels["shape"].flat, strict=True)}
    assert not pairs & HELD_OUT


def test_vocabulary_keeps_its_first_ids_and_covers_all_words(dev: World):
    assert VIDEO == 3
    assert [VOCABULARY[word] for word in ("red", "circle", "still", "one", "yes", "small")] == [7, 15, 20, 25, 29, 72]
    assert len(VOCABULARY) <= VOCABULARY_ROWS - 20, "head-room for later words"
    assert IMAGE == VOCABULARY_ROWS - 1
    for phrasing in (phrasing for phrasings in PHRASES.values() for phrasing in phrasings):
        encode(" ".join(word for word in phrasing.split() if "{" not in word))
    for kind in TICKS:
        for _ in range(20):
            for question in dev.sample(kind, 40, render=False).questions:
                assert decode(encode(question.text)) == question.text
                assert len(encode(question.answer)) <= 2
    with pytest.raises(ConfigError, match="zebra"):
        encode("is there a zebra")


def test_every_type_is_asked_in_at_least_three_ways(dev: World):
    assert set(CHANCE) == set(TYPES)
    assert all(len(set(phrasings)) >= 3 for phrasings in PHRASES.values())
    asked = Counter(q.type for _ in range(150) for q in dev.sample(limit=40, render=False).questions)
    assert set(asked) == set(TYPES)
    first = World("dev", 3, phrasings=1, textures=4)
    assert {q.phrasing for _ in range(5) for q in first.sample(render=False).questions} == {0}


def test_questions_are_few_and_different_and_of_many_types(dev: World):
    for _ in range(20):
        questions = dev.sample(limit=9, render=False).questions
        assert len(questions) <= 9
        assert len({question.text for question in questions}) == len(questions)
        assert len({question.type for question in questions}) >= min(7, len(questions))
    assert not {q.type for _ in range(20) for q in dev.sample(render=False).questions} & set(PROMPTS)


def test_answers_agree_with_an_independent_reading(dev: World):
    read: Counter[str] = Counter()
    for _ in range(250):
        sample = dev.sample(limit=60, render=False)
        film = Film(sample.scene)
        for question in sample.questions:
            expected = film.answer(question.type, question.text)
            assert expected == question.answer, f"{question} {sample.scene}"
            read[question.type] += 1
    assert all(read[kind] >= 10 for kind in TYPES)


class Film:
    """What is in each of the 16 frames, and answers read from that alone."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.frames: list[dict[int, tuple[int, int, int, np.ndarray]]] = []
        for tick in range(16):
            now = np.array([float(tick)])
            frame = {}
            for index, thing in enumerate(scene.things):
                if thing.enters <= tick < thing.leaves:
                    late = thing.changes is not None and tick >= thing.changes
                    color = thing.new_color if late and thing.new_color is not None else thing.color
                    size = thing.new_size if late and thing.new_size is not None else thing.size
                    frame[index] = (color, thing.shape, size, thing.at(now)[0])
            self.frames.append(frame)
        self.lit = [[f.color for f in scene.flashes if f.enters <= tick < f.leaves] for tick in range(16)]
        self.starts = [t for t in range(16) if self.lit[t] and (t == 0 or self.lit[t] != self.lit[t - 1])]

    def life(self, index: int) -> list[int]:
        return [tick for tick, frame in enumerate(self.frames) if index in frame]

    def history(self, index: int) -> list[tuple[int, int, int, np.ndarray]]:
        return [frame[index] for frame in self.frames if index in frame]

    def find(self, words: list[str]) -> int | None:
        """The thing named by the colour and shape words of a text."""
        color = next((COLORS.index(w) for w in words if w in COLORS), None)
        shape = next((SHAPES.index(w) for w in words if w in SHAPES), None)
        for index in range(len(self.scene.things)):
            looks = self.history(index)
            if any(color in (None, c) and shape in (None, s) for c, s, _, _ in looks):
                return index
        return None

    def answer(self, kind: str, text: str) -> str:
        words = text.split()
        if kind == "absent":
            return self.absent(words)
        return getattr(self, f"answer_{kind}")(words)

    def absent(self, words: list[str]) -> str:
        if "flash" in words:
            nth = [w for w in words if w in ("first", "second", "third")]
            there = len(self.starts) > (("first", "second", "third").index(nth[0]) if nth else 0)
        elif "sign" in words:
            there = self.scene.sign is not None
        else:
            there = self.find(words) is not None
        return "there" if there else "not there"

    def color_of(self, index: int, moment: int = -1) -> str:
        return COLORS[self.history(index)[moment][0]]

    def answer_color(self, words: list[str]) -> str:
        return self.color_of(self.find(words))

    def answer_was(self, words: list[str]) -> str:
        return self.color_of(self.find(words), 0 if "first" in words else -1)

    def answer_shape(self, words: list[str]) -> str:
        return SHAPES[self.history(self.find(words))[0][1]]

    def answer_size(self, words: list[str]) -> str:
        sizes = {look[2] for look in self.history(self.find(words))}
        return ("small", "big")[sizes.pop()] if len(sizes) == 1 else "changes"

    def answer_direction(self, words: list[str]) -> str:
        path = [look[3] for look in self.history(self.find(words))]
        dx, dy = path[-1] - path[0]
        if abs(dx) + abs(dy) < 1:
            return "still"
        axis = (dx < 0, dx > 0, dy < 0, dy > 0)
        return HEADINGS[1 + axis.index(True)]

    def answer_where(self, words: list[str]) -> str:
        x, y = self.history(self.find(words))[-1][3]
        return f"{'top' if y < SIDE / 2 else 'bottom'} {'left' if x < SIDE / 2 else 'right'}"

    def answer_count(self, words: list[str]) -> str:
        return DIGITS[len({index for frame in self.frames for index in frame})]

    def answer_order(self, words: list[str]) -> str:
        names = [w for w in words if w in COLORS]
        return min(names, key=lambda name: self.life(self.find([name]))[0])

    def answer_last(self, words: list[str]) -> str:
        newest = max(range(len(self.scene.things)), key=lambda index: self.life(index)[0])
        return f"{self.color_of(newest)} {SHAPES[self.history(newest)[0][1]]}"

    def answer_exist(self, words: list[str]) -> str:
        return "no" if self.find(words) is None else "yes"

    def changed(self) -> set[str]:
        kinds = set()
        for index in range(len(self.scene.things)):
            for (color, _, size, _), (color2, _, size2, _) in zip(
                self.history(index), self.history(index)[1:], strict=False
            ):
                kinds |= {"color"} if color != color2 else {"size"} if size != size2 else set()
        return kinds

    def answer_change(self, words: list[str]) -> str:
        kinds = self.changed()
        return kinds.pop() if len(kinds) == 1 else "nothing" if not kinds else "both"

    def answer_needle(self, words: list[str]) -> str:
        return COLORS[self.lit[self.starts[0]][0]] if len(self.starts) == 1 else str(self.starts)

    def answer_when(self, words: list[str]) -> str:
        lit = [tick for tick in range(16) if self.lit[tick]]
        parts = {"start" if tick < 5 else "middle" if tick < 10 else "end" for tick in lit}
        return parts.pop() if len(parts) == 1 else str(parts)

    def answer_flash(self, words: list[str]) -> str:
        return "yes" if self.starts else "no"

    def answer_flashes(self, words: list[str]) -> str:
        return DIGITS[len(self.starts)]

    def answer_nth(self, words: list[str]) -> str:
        which = next(w for w in words if w in ("first", "second", "third", "last"))
        return COLORS[self.lit[self.starts[{"first": 0, "second": 1, "third": 2, "last": -1}[which]]][0]]

    def answer_digit(self, words: list[str]) -> str:
        return DIGITS[self.scene.sign.digit]

    def steps(self, index: int) -> np.ndarray:
        path = np.array([look[3] for look in self.history(index)])
        return np.abs(np.diff(path, axis=0)).sum(1)

    def answer_moved_first(self, words: list[str]) -> str:
        starts = {}
        for index in range(len(self.scene.things)):
            if (moving := np.flatnonzero(self.steps(index) > 0.01)).size:
                starts[index] = self.life(index)[moving[0]]
        order = sorted(starts, key=lambda index: starts[index])
        assert starts[order[1]] - starts[order[0]] >= 2
        return self.color_of(order[0])

    def answer_fastest(self, words: list[str]) -> str:
        speed = {index: self.steps(index).max(initial=0) for index in range(len(self.scene.things))}
        return self.color_of(max(speed, key=lambda index: speed[index]))

    def answer_beside(self, words: list[str]) -> str:
        here = self.find(words)
        axis, sign = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}[
            next(w for w in words if w in ("left", "right", "above", "below"))
        ]
        beside = set()
        for tick in (t for t in range(16) if self.lit[t]):
            frame = self.frames[tick]
            for index, (color, shape, _, place) in frame.items():
                offset = place - frame[here][3]
                if index != here and offset[axis] * sign > abs(offset[1 - axis]):
                    beside.add(f"{COLORS[color]} {SHAPES[shape]}")
        return beside.pop() if len(beside) == 1 else "nothing" if not beside else str(beside)

    def answer_between(self, words: list[str]) -> str:
        dark_from, dark_to = 0, 16
        ends = [max(t for t in range(s, 16) if self.lit[t] == self.lit[s]) for s in self.starts]
        if "between" in words:
            dark_from, dark_to = ends[0] + 1, self.starts[1]
        elif "before" in words:
            dark_to = self.starts[0]
        else:
            dark_from = ends[-1] + 1
        happened = []
        for tick in range(max(1, dark_from), dark_to):
            before, now = self.frames[tick - 1], self.frames[tick]
            happened += [f"{COLORS[now[i][0]]} appeared" for i in now.keys() - before.keys()]
            happened += [f"{COLORS[before[i][0]]} left" for i in before.keys() - now.keys()]
            same = before.keys() & now.keys()
            happened += [f"{COLORS[before[i][0]]} changed" for i in same if before[i][0::2][:2] != now[i][0::2][:2]]
        return happened[0] if len(happened) == 1 else "nothing" if not happened else str(happened)

    def answer_left(self, words: list[str]) -> str:
        gone = [index for index in range(len(self.scene.things)) if index not in self.frames[-1]]
        return self.color_of(gone[0]) if len(gone) == 1 else "nothing" if not gone else str(gone)
