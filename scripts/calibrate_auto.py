"""Find, in a run of `edgevtc eval` on the development split, how `--budget auto` is to choose among a method's budgets.

The run holds every question's answer and its margin at every budget. From them follows what auto would have done with
any of the budgets and any threshold: the first budget whose margin reaches it, else the largest. Of those that give up
at most ``--drop`` points of the accuracy at the largest budget, with a standard error to spare, the choice of fewest
tokens is taken. Tokens are counted as prefilled: those of every budget tried.

The row of auto is cross-validated: each half of the clips by what the other half chose. "Right above wrong" is the
chance that a right answer's margin exceeds a wrong one's. Needs no torch.

    edgevtc eval --bundle DIR --method infomerge,holitom --split dev --seed 7 --videos 150 --questions 8 --out RUN
    python scripts/calibrate_auto.py RUN
    python scripts/calibrate_auto.py RUN --write CHECKPOINT     # an export of it then carries what was found
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevtc.bundle import AutoEntry
from edgevtc.cli.eval import listed
from edgevtc.errors import ConfigError, EdgeVTCError, choices
from edgevtc.eval.auto import Answers, Outcome, answers_of, given_at, outcome, tried
from edgevtc.eval.intervals import Score, Sheet
from edgevtc.eval.journal import Cell, Journal
from edgevtc.exporter.knowledge import AUTO
from edgevtc.files import write_whole


@dataclass(frozen=True)
class Calibrated:
    """What was found for a method.

    Attributes:
        method: Its name.
        auto: The choice, by all clips.
        questions: How many were asked.
        fixed: Budget → accuracy of that one for all questions.
        telling: Budget → chance that a right answer's margin exceeds a wrong one's; None where all are right or wrong.
        cross_validated: What auto does on each half of the clips as the other half calibrates it.
    """

    method: str
    auto: AutoEntry
    questions: int
    fixed: dict[int, Score]
    telling: dict[int, float | None]
    cross_validated: Outcome


def several_budgets(cells: Sequence[Cell], wanted: Sequence[str] | None) -> dict[str, list[Cell]]:
    """The wanted methods, or all, that were measured at several budgets.

    Raises:
        ConfigError: One of them was not, or none was.
    """
    by_method: dict[str, list[Cell]] = {}
    for cell in cells:
        by_method.setdefault(cell.method, []).append(cell)
    found = {method: mine for method, mine in by_method.items() if len(mine) > 1}
    if not found:
        raise ConfigError("no method was measured at several budgets: evaluate one at several retention ratios")
    for method in wanted or ():
        if method not in found:
            raise ConfigError(f"{method!r} was not measured at several budgets: {choices(found)}")
    return {method: found[method] for method in dict.fromkeys(wanted or found)}


def calibrated(method: str, answers: Answers, drop: float) -> Calibrated:
    """What is found for a method from its answers."""
    sheet = Sheet.by_question(answers.right, answers.videos)
    columns = dict(enumerate(answers.budgets.tolist()))
    return Calibrated(
        method,
        calibrate(answers, drop),
        sheet.questions,
        {budget: sheet.score(column) for column, budget in columns.items()},
        {budget: telling(answers.margins[:, column], answers.right[:, column]) for column, budget in columns.items()},
        cross_validated(answers, drop),
    )


def telling(margins: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """The chance that a right answer's margin exceeds a wrong one's, of [Q] each; a tie is half of one."""
    if right.all() or not right.any():
        return None
    apart = margins[right][:, None] - margins[~right]
    return float(((apart > 0) + (apart == 0) / 2).mean())


def calibrate(answers: Answers, drop: float) -> AutoEntry:
    """The choice of fewest prefilled tokens that gives up at most ``drop`` points, and one standard error, of accuracy.

    It ends with the largest budget, and may be that one alone.
    """
    *lower, largest = answers.budgets.tolist()
    thresholds = np.unique(np.quantile(answers.margins, np.linspace(0, 1, 101)).clip(0).round(4))
    best = float(largest), AutoEntry((largest,), 0.0)
    for size in range(1, len(lower) + 1):
        for budgets in combinations(lower, size):
            for threshold in thresholds:
                entry = AutoEntry((*budgets, largest), float(threshold))
                found = tried(answers, entry)
                prefilled = float((found @ answers.budgets).mean())
                if prefilled < best[0] and least_gain(answers, found) >= -drop / 100:
                    best = prefilled, entry
    return best[1]


def least_gain(answers: Answers, found: NDArray[np.bool_]) -> float:
    """Accuracy gained over the largest budget, less a standard error over clips: the best of many is partly luck."""
    right = answers.right[np.arange(len(found)), given_at(found)].astype(np.float64)
    gain = right - answers.right[:, -1].astype(np.float64)
    by_clip = np.bincount(clip_numbers(answers), weights=gain)
    return float(gain.mean() - by_clip.std() * np.sqrt(len(by_clip)) / len(gain))


def cross_validated(answers: Answers, drop: float) -> Outcome:
    """What auto does on every second clip as the others calibrate it, and on those the other way round."""
    odd = clip_numbers(answers) % 2 == 1
    found = np.zeros(answers.right.shape, bool)
    for half in (odd, ~odd):
        found[half] = tried(answers.part(half), calibrate(answers.part(~half), drop))
    return outcome(answers, found)


def clip_numbers(answers: Answers) -> NDArray[np.int64]:
    """[Q] which of the clips, 0, 1, …, each question is about."""
    return np.unique(answers.videos, return_inverse=True)[1]


def write(checkpoint: Path, results: Sequence[Calibrated]) -> None:
    """Put what was found into a checkpoint's folder, instead of what was found before.

    Raises:
        ConfigError: The folder cannot be written to.
    """
    entries = {result.method: asdict(result.auto) for result in results}
    try:
        write_whole(checkpoint / AUTO, json.dumps(entries, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{checkpoint} cannot be written to ({error.strerror})") from None


def show(results: Sequence[Calibrated], clips: int) -> None:
    """Print a table of all methods, and what auto is to do."""
    asked = results[0].questions
    heads = "accuracy, % [95 % interval] | tokens kept | tokens prefilled | right above wrong"
    print(f"| {clips} clips, {asked} questions | {heads} |\n|---|---|---:|---:|---:|")
    for result in results:
        for budget, accuracy in result.fixed.items():
            chance = "" if (found := result.telling[budget]) is None else f"{found:.2f}"
            print(f"| {result.method}, {budget} | {percent(accuracy)} | {budget} | {budget} | {chance} |")
        auto = result.cross_validated
        tokens = f"{auto.tokens_kept:.1f} | {auto.tokens_prefilled:.1f}"
        print(f"| {result.method}, auto | {percent(auto.accuracy)} | {tokens} | |")
    print()
    for result in results:
        chosen, crossed = result.auto, result.cross_validated
        by = f" by a margin of {chosen.margin:g}" if len(chosen.budgets) > 1 else ""
        apart = ", ".join(f"{100 * value:+.1f}" for value in (crossed.minus_fixed.low, crossed.minus_fixed.high))
        print(
            f"{result.method}: {' and '.join(map(str, chosen.budgets))} tokens{by}; cross-validated, "
            f"{100 * crossed.minus_fixed.value:+.1f} [{apart}] points beside {crossed.fixed_budget} tokens for all"
        )


def percent(score: Score) -> str:
    """An accuracy with its interval, in percent."""
    return f"{100 * score.accuracy:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def run(args: argparse.Namespace) -> None:
    """Calibrate, print, and write where that was asked for.

    Raises:
        ConfigError: The run is not one to calibrate by, or there is no checkpoint to write to.
    """
    with Journal(args.run) as journal:
        arguments, records = journal.arguments, list(journal.records.values())
    if arguments.split != "dev":
        raise ConfigError(
            f"{args.run} is a run of the {arguments.split} split, by which nothing is chosen: evaluate the dev split"
        )
    if len(records) < 2:
        raise ConfigError(f"{args.run} holds {len(records)} measured clips, two are needed: go on with the run")
    if args.write is not None and not (args.write / "config.json").is_file():
        raise ConfigError(f"{args.write} holds no checkpoint (no config.json is there): give the folder to export")
    methods = several_budgets(arguments.cells, listed(args.method))
    results = [calibrated(name, answers_of(records, cells), args.drop) for name, cells in methods.items()]
    if args.json:
        where = {"bundle_sha256": arguments.bundle_sha256, "seed": arguments.seed, "videos": len(records)}
        print(json.dumps({**where, "methods": [asdict(result) for result in results]}, indent=1))
    else:
        show(results, len(records))
        print(f"\nbundle {arguments.bundle_sha256[:8]}…, dev split at seed {arguments.seed}")
    if args.write is not None:
        write(args.write, results)


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run on the dev split (edgevtc eval --out)")
    parser.add_argument("--method", action="append", metavar="NAME,…", help="may be repeated (default: every method)")
    parser.add_argument("--drop", type=float, default=1.0, metavar="POINTS", help="accuracy to give up (default: 1)")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help=f"write {AUTO} into a checkpoint's folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    try:
        run(parser.parse_args(words))
    except EdgeVTCError as error:
        print(f"calibrate_auto: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
