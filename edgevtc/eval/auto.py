"""What `--budget auto` would have answered, from answers at every budget and their margins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgevtc.bundle import AutoEntry
from edgevtc.eval.examiner import ClipRecord
from edgevtc.eval.intervals import Estimate, Score, Sheet
from edgevtc.eval.journal import Cell

__all__ = ["AutoResult", "auto_results"]


@dataclass(frozen=True)
class AutoResult:
    """A method whose budget each question chooses among several, the smallest first.

    Attributes:
        method: Its name.
        margin: Answer margin below which the next budget is tried.
        accuracy: Share of right answers.
        tokens_kept: Mean of the budgets that answers were given at.
        tokens_prefilled: Mean of the sums of all budgets tried.
        fixed_budget: The smallest of its budgets with at least `tokens_prefilled` tokens, else the largest.
        minus_fixed: By how much auto is more accurate than that budget.
    """

    method: str
    margin: float
    accuracy: Score
    tokens_kept: float
    tokens_prefilled: float
    fixed_budget: int
    minus_fixed: Estimate


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
        mine = (cell for cell in cells if cell.method == method and cell.budget in entry.budgets)
        rising = sorted(mine, key=lambda cell: cell.budget)
        if len(rising) == len(entry.budgets) > 1:
            yield auto_result(records, rising, entry.margin)


def auto_result(records: Sequence[ClipRecord], rising: Sequence[Cell], margin: float) -> AutoResult:
    """The result of one method, whose cells come by rising budget."""
    budgets = np.array([cell.budget for cell in rising])
    kept, prefilled, right, asked = [], [], [], []
    for record in records:
        measured = [record.cells[cell.name] for cell in rising]
        enough = np.array([cell.margins for cell in measured]) >= margin
        enough[-1] = True  # there is no larger budget to try
        chosen = enough.argmax(0)
        hits = [
            [answer == question.answer for answer, question in zip(cell.answers, record.questions, strict=True)]
            for cell in measured
        ]
        kept.append(budgets[chosen])
        prefilled.append(budgets.cumsum()[chosen])
        right.append([sum(hits[at][place] for place, at in enumerate(chosen)), *(sum(row) for row in hits)])
        asked.append(len(record.questions))
    sheet = Sheet(np.array(right), np.array(asked))
    spent = float(np.concatenate(prefilled).mean())
    fixed = min(int(np.searchsorted(budgets, spent)), len(budgets) - 1)
    return AutoResult(
        rising[0].method,
        margin,
        sheet.score(0),
        float(np.concatenate(kept).mean()),
        spent,
        int(budgets[fixed]),
        sheet.difference(0, fixed + 1),
    )
