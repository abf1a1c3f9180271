"""How much of the gap between random and all tokens a method recovers, by how many tokens are kept for each thing.

    edgevtc eval --split test --videos 150 --out RUN
    python scripts/bench_tokens_per_thing.py RUN --methods infomerge,holitom,ustc

Every clip at every budget is put where its kept tokens, divided by the things in its scene, fall. Retention ratios of
clips with one thing and with six thus meet in one row, and so do runs of models with other numbers of tokens a frame.
Intervals are 95 % bootstrap over clips. Needs no torch.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgevtc.eval.examiner import ClipRecord
from edgevtc.eval.intervals import Estimate, Sheet
from edgevtc.eval.journal import Cell, Journal
from edgevtc.eval.report import FLOOR

#: Kept tokens for each thing: the bounds of the rows.
BOUNDS = (0, 5, 10, 20, 40, 80, 160, np.inf)


def right_answers(record: ClipRecord, cell: Cell) -> int:
    """How many of a clip's questions a cell answered right."""
    answers = record.cells[cell.name].answers
    return sum(said == asked.answer for said, asked in zip(answers, record.questions, strict=True))


def row(
    records: Sequence[ClipRecord], full: Cell, pairs: Sequence[tuple[Cell, Cell]], low: float, high: float
) -> tuple[Sheet | None, int]:
    """All tokens, a method and the floor at the budgets that keep low to high tokens a thing; and how many clips."""
    right, asked = np.zeros((len(records), 3)), np.zeros(len(records))
    for index, record in enumerate(records):
        for cell, floor in pairs:
            if low <= cell.budget / int(record.slices["things"]) < high:
                asked[index] += len(record.questions)
                right[index] += [right_answers(record, which) for which in (full, cell, floor)]
    clips = int((asked > 0).sum())
    return (Sheet(right, asked), clips) if clips > 1 else (None, clips)


def shown(share: Estimate | None) -> str:
    """A share in percent with its interval."""
    return "–" if share is None else f"{100 * share.value:.0f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def main() -> None:
    """Read a run's folder, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="--out of a run of `edgevtc eval` that measured `random`, too")
    parser.add_argument("--methods", default="infomerge,holitom,ustc", help="names, with commas between")
    options = parser.parse_args()
    with Journal(options.folder) as journal:
        full, *cells = journal.arguments.cells
        records = list(journal.records.values())
    floors = {cell.budget: cell for cell in cells if cell.method == FLOOR}
    methods = options.methods.split(",")
    if lacking := set(methods) - {cell.method for cell in cells}:
        raise SystemExit(f"{options.folder} lacks {', '.join(sorted(lacking))}: measure it, or name others")
    for cell in cells:
        if cell.method in methods and cell.budget not in floors:
            raise SystemExit(f"{options.folder} lacks {FLOOR} at {cell.budget} tokens: measure it with the methods")
    paired = {m: [(cell, floors[cell.budget]) for cell in cells if cell.method == m] for m in methods}
    total = journal.arguments.tokens_total
    print(f"{total} tokens a clip: % of the gap between `{FLOOR}` and all tokens that is recovered\n")
    print("| kept tokens for each thing | clips | " + " | ".join(f"`{m}`" for m in methods) + " |")
    print("|---|---:|" + "---:|" * len(methods))
    for low, high in itertools.pairwise(BOUNDS):
        found = {m: row(records, full, paired[m], low, high) for m in methods}
        parts = ["–" if sheet is None else shown(sheet.share(1, 0, 2)) for sheet, _ in found.values()]
        clips = max(number for _, number in found.values())
        label = f"{low} to {high}" if high < np.inf else f"{low} and more"
        print(f"| {label} | {clips} | " + " | ".join(parts) + " |")


if __name__ == "__main__":
    main()
