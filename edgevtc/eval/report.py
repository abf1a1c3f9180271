"""From a run's records to its numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevtc.errors import ConfigError
from edgevtc.eval.auto import AutoResult, auto_results
from edgevtc.eval.examiner import Asked, ClipRecord
from edgevtc.eval.intervals import Estimate, Score, Sheet
from edgevtc.eval.journal import Cell, Journal, RunArguments
from edgevtc.eval.world_phrases import CHANCE, TYPES
from edgevtc.eval.world_scores import Blind
from edgevtc.files import write_whole

__all__ = ["BLIND_SCENES", "FLOOR", "SLICES", "CellResult", "Difference", "Group", "Report", "make_report"]

#: The floor that shares of the gap are counted from.
FLOOR = "random"

#: What clips are grouped by.
SLICES = ("camera", "noise", "length", "things")

#: Training scenes that the control `blind` learns from.
BLIND_SCENES = 8000

Array = NDArray[Any]


@dataclass(frozen=True)
class CellResult:
    """One method at one budget.

    Attributes:
        cell: Which.
        accuracy: Share of right answers.
        of_full: Its share of the accuracy with all tokens.
        gap_recovered: Its share of the gap between `random` at the same budget and all tokens; None where `random`
            was not measured there, or all tokens are not better than it.
        compress_s: Median time of the compressor.
        prefill_s: Median time of the first question's prefill.
        ttft_s: Median time from opening the file to the first token.
    """

    cell: Cell
    accuracy: Score
    of_full: Estimate | None
    gap_recovered: Estimate | None
    compress_s: float
    prefill_s: float
    ttft_s: float


@dataclass(frozen=True)
class Difference:
    """By how much `method` is more accurate than `other` at a budget, on the same questions."""

    method: str
    other: str
    budget: int
    retention_ratio: float
    accuracy: Estimate


@dataclass(frozen=True)
class Group:
    """Questions of one type, or about one slice of clips: the accuracy of every cell, by its name.

    Attributes:
        questions: How many.
        chance: Right by uniform guessing, of a type.
        blind: By the questions' words alone.
        shuffled_video: With the tokens of another clip; None where it was asked none.
        cells: Cell → accuracy.
    """

    questions: int
    chance: float | None
    blind: Score
    shuffled_video: Score | None
    cells: dict[str, Score]


@dataclass(frozen=True)
class Report:
    """All numbers of a run.

    Attributes:
        arguments: What the run was started with.
        videos: Clips measured.
        blind: Control: the answer most frequent in training for the question's exact words.
        shuffled_video: Control: all tokens, of another clip.
        open_s: Median time to read, decode and encode a clip.
        clip_s: Median time of a whole clip in the run, rendering included.
        cells: The full tokens first.
        differences: Of all pairs of methods at each budget.
        auto: Methods whose budget each question chooses.
        types: Question type → its results.
        slices: Slice → value → its results.
    """

    arguments: RunArguments
    videos: int
    blind: Score
    shuffled_video: Score
    open_s: float
    clip_s: float
    cells: tuple[CellResult, ...]
    differences: tuple[Difference, ...]
    auto: tuple[AutoResult, ...]
    types: dict[str, Group]
    slices: dict[str, dict[str, Group]]


def make_report(journal: Journal, videos: int | None = None, blind_scenes: int = BLIND_SCENES) -> Report:
    """The numbers of a run's records.

    Args:
        journal: The run.
        videos: Only the first so many clips.
        blind_scenes: Training scenes that the control `blind` learns from.

    Raises:
        ConfigError: Fewer than two clips were measured.
    """
    records = [journal.records[video] for video in sorted(journal.records) if videos is None or video < videos]
    if len(records) < 2:
        raise ConfigError(f"{journal.folder} holds {len(records)} measured clips, two are needed: go on with the run")
    blind = blind_answers(journal.folder, records, blind_scenes)
    cells = journal.arguments.cells
    everything = sheet(records, cells, blind)
    foreign = foreign_sheet(records)
    by_type = {kind: asked_type(kind) for kind in TYPES}
    present = {question.type for record in records for question in record.questions}
    return Report(
        journal.arguments,
        len(records),
        everything.score(len(cells)),
        foreign.score(0),
        median(record.open_s for record in records),
        median(record.seconds for record in records),
        tuple(cell_result(everything, records, cells, index) for index in range(len(cells))),
        tuple(differences(everything, cells)),
        tuple(auto_results(records, cells, journal.arguments.auto)),
        {
            kind: group(records, cells, blind, wanted, CHANCE[kind])
            for kind, wanted in by_type.items()
            if kind in present
        },
        {name: slice_groups(records, cells, blind, name) for name in SLICES},
    )


def blind_answers(folder: Path, records: Sequence[ClipRecord], scenes: int) -> dict[str, str]:
    """Question → what words alone answer; kept in the run's folder, for learning it takes a while."""
    path = folder / "blind.json"
    texts = {question.text for record in records for question in record.questions}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["scenes"] == scenes and texts <= kept["answers"].keys():
            return kept["answers"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # not there yet, or not ours: it is made again
    control = Blind(scenes)
    answers = {text: control.answer(text) for text in sorted(texts)}
    write_whole(path, json.dumps({"scenes": scenes, "answers": answers}, indent=1) + "\n")
    return answers


def asked_type(kind: str) -> Callable[[Asked], bool]:
    """Whether a question is of a type."""
    return lambda question: question.type == kind


def sheet(
    records: Sequence[ClipRecord],
    cells: Sequence[Cell],
    blind: dict[str, str],
    wanted: Callable[[Asked], bool] = lambda question: True,
) -> Sheet:
    """Right answers of every cell, and in the last column of `blind`, to the wanted questions."""
    right = np.zeros((len(records), len(cells) + 1))
    asked = np.zeros(len(records))
    for row, record in enumerate(records):
        places = [place for place, question in enumerate(record.questions) if wanted(question)]
        asked[row] = len(places)
        for column, cell in enumerate(cells):
            answers = record.cells[cell.name].answers
            right[row, column] = sum(answers[place] == record.questions[place].answer for place in places)
        right[row, -1] = sum(blind[record.questions[p].text] == record.questions[p].answer for p in places)
    return Sheet(right, asked)


def foreign_sheet(records: Sequence[ClipRecord], wanted: Callable[[Asked], bool] = lambda question: True) -> Sheet:
    """Right answers to the wanted questions about another clip, in one column."""
    right, asked = np.zeros((len(records), 1)), np.zeros(len(records))
    for row, record in enumerate(records):
        for question, answer in zip(record.foreign, record.foreign_answers, strict=True):
            if wanted(question):
                asked[row] += 1
                right[row] += answer == question.answer
    return Sheet(right, asked)


def cell_result(everything: Sheet, records: Sequence[ClipRecord], cells: Sequence[Cell], index: int) -> CellResult:
    """What came of one cell."""
    cell = cells[index]
    floor = next((i for i, c in enumerate(cells) if (c.method, c.budget) == (FLOOR, cell.budget)), None)
    measured = [record.cells[cell.name] for record in records]
    return CellResult(
        cell,
        everything.score(index),
        everything.share(index, 0),
        None if floor is None else everything.share(index, 0, floor),
        median(entry.compress_s for entry in measured),
        median(entry.prefill_s for entry in measured),
        median(entry.ttft_s for entry in measured),
    )


def differences(everything: Sheet, cells: Sequence[Cell]) -> Iterable[Difference]:
    """All pairs of methods at equal budgets."""
    for (i, one), (j, other) in combinations(enumerate(cells), 2):
        if one.budget == other.budget:
            yield Difference(one.method, other.method, one.budget, one.retention_ratio, everything.difference(i, j))


def group(
    records: Sequence[ClipRecord],
    cells: Sequence[Cell],
    blind: dict[str, str],
    wanted: Callable[[Asked], bool] = lambda question: True,
    chance: float | None = None,
) -> Group:
    """Results of the wanted questions about some clips."""
    found = sheet(records, cells, blind, wanted)
    foreign = any(wanted(question) for record in records for question in record.foreign)
    return Group(
        found.questions,
        chance,
        found.score(len(cells)),
        foreign_sheet(records, wanted).score(0) if foreign else None,
        {cell.name: found.score(index) for index, cell in enumerate(cells)},
    )


def slice_groups(
    records: Sequence[ClipRecord], cells: Sequence[Cell], blind: dict[str, str], name: str
) -> dict[str, Group]:
    """Results by a slice's values."""
    values = dict.fromkeys(record.slices[name] for record in records)
    return {
        value: group([record for record in records if record.slices[name] == value], cells, blind)
        for value in sorted(values, key=numbers_first)
    }


def numbers_first(text: str) -> tuple[float, str]:
    """Sorts values that begin with a number by it."""
    first = text.split()[0]
    return (float(first) if first[0].isdigit() else float("inf"), text)


def median(values: Iterable[float]) -> float:
    """The median."""
    return float(np.median(list(values)))
