"""What `--budget auto` would have answered, from answers at every budget and their margins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevtc.bundle import AutoEntry
from edgevtc.eval.examiner import ClipRecord
from edgevtc.eval.intervals import Estimate, Score, Sheet
from edgevtc.eval.journal import Cell

__all__ = ["Answers", "AutoResult", "Outcome", "answers_of", "auto_results", "given_at", "outcome", "tried"]


@dataclass(frozen=True)
class Answers:
    """Answers to Q questions at each of a method's K budgets.

    Attributes:
        budgets: [K] tokens, rising.
        videos: [Q] clip of each question.
        right: [Q, K] bool.
        margins: [Q, K] answer margins.
    """

    budgets: NDArray[np.int64]
    videos: NDArray[np.int64]
    right: NDArray[np.bool_]
    margins: NDArray[np.float64]

    def part(self, chosen: NDArray[np.bool_]) -> Answers:
        """Those to some of the questions: [Q] bool."""
        return Answers(self.budgets, self.videos[chosen], self.right[chosen], self.margins[chosen])


@dataclass(frozen=True)
class Outcome:
    """What came of letting each question choose its budget.

    Attributes:
        accuracy: Share of right answers.
        tokens_kept: Mean of the budgets that answers were given at.
        tokens_prefilled: Mean of the sums of all budgets tried.
        fixed_budget: The smallest of the budgets with at least `tokens_prefilled` tokens, else the largest.
        minus_fixed: By how much that is more accurate than this budget for all questions.
    """

    accuracy: Score
    tokens_kept: float
    tokens_prefilled: float
    fixed_budget: int
    minus_fixed: Estimate


@dataclass(frozen=True)
class AutoResult(Outcome):
    """The outcome for a method as its bundle goes about it.

    Attributes:
        method: Its name.
        margin: Answer margin below which the next budget is tried.
    """

    method: str
    margin: float


def auto_results(
    records: Sequence[ClipRecord], cells: Sequence[Cell], auto: dict[str, AutoEntry]
) -> Iterable[AutoResult]:
    """Results of every method that has several budgets to choose among, all of them measured.

    Args:
        records: What was measured.
        cells: Methods at budgets.
        auto: Method → its budgets and threshold.
    """
    for method, entry in auto.items():
        mine = [cell for cell in cells if cell.method == method and cell.budget in entry.budgets]
        if len(mine) == len(entry.budgets) > 1:
            answers = answers_of(records, mine)
            yield AutoResult(**vars(outcome(answers, tried(answers, entry))), method=method, margin=entry.margin)


def answers_of(records: Sequence[ClipRecord], cells: Iterable[Cell]) -> Answers:
    """What was answered to every question of some clips by one method, whose cells these are."""
    rising = sorted(cells, key=lambda cell: cell.budget)
    videos, right, margins = [], [], []
    for record in records:
        measured = [record.cells[cell.name] for cell in rising]
        for place, question in enumerate(record.questions):
            videos.append(record.video)
            right.append([cell.answers[place] == question.answer for cell in measured])
            margins.append([cell.margins[place] for cell in measured])
    budgets = np.array([cell.budget for cell in rising])
    return Answers(budgets, np.array(videos), np.array(right), np.array(margins))


def tried(answers: Answers, entry: AutoEntry) -> NDArray[np.bool_]:
    """[Q, K] budgets that an answer is begun at, the smallest first; the last of them gives it."""
    found = np.zeros(answers.right.shape, bool)
    doubtful = np.ones(len(found), bool)
    for column in np.flatnonzero(np.isin(answers.budgets, entry.budgets)):
        found[:, column] = doubtful
        doubtful = doubtful & (answers.margins[:, column] < entry.margin)
    return found


def given_at(found: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[Q] the last column tried of [Q, K]."""
    return found.shape[1] - 1 - found[:, ::-1].argmax(1)


def outcome(answers: Answers, found: NDArray[np.bool_]) -> Outcome:
    """Of the budgets tried [Q, K]."""
    budgets, last = answers.budgets, given_at(found)
    given = answers.right[np.arange(len(last)), last]
    sheet = Sheet.by_question(np.column_stack([given, answers.right]), answers.videos)
    prefilled = float((found @ budgets).mean())
    fixed = min(int(np.searchsorted(budgets, prefilled)), len(budgets) - 1)
    return Outcome(
        sheet.score(0), float(budgets[last].mean()), prefilled, int(budgets[fixed]), sheet.difference(0, fixed + 1)
    )
