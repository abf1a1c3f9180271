"""Find, on the development split of the synthetic world, how `--budget auto` is to choose among a method's budgets.

Every question is answered at every budget of a method, each clip encoded once. From the answers and their margins
follows what auto would have done with any of the budgets and any threshold: the first budget whose margin reaches it,
else the largest. Of those that give up at most ``--drop`` points of the accuracy at the largest budget, with a standard
error to spare, the choice of fewest tokens is taken. Tokens are counted as prefilled: those of every budget tried.

The row of auto is cross-validated: each half of the clips by what the other half chose. Needs no torch. The test split
is not looked at.

    python scripts/calibrate_auto.py --method infomerge --method holitom --videos 150
    python scripts/calibrate_auto.py --bundle DIR --write     # into the bundle's manifest, for every method
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevtc import Runner
from edgevtc.adaptive import by_budget
from edgevtc.bundle import AutoEntry, Bundle
from edgevtc.eval.clips import Clips
from edgevtc.eval.intervals import Score
from edgevtc.eval.world_scores import Result, score
from edgevtc.files import write_whole


@dataclass(frozen=True)
class Answers:
    """Q questions at each of K budgets of a method, by rising budget.

    Attributes:
        budgets: [K] tokens.
        videos: [Q] clip of each question.
        right: [Q, K] bool.
        margins: [Q, K] answer margins.
    """

    budgets: NDArray[np.int64]
    videos: NDArray[np.int64]
    right: NDArray[np.bool_]
    margins: NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Accuracy, and mean visual tokens a question: those the answer was given at, and all that were prefilled."""

    accuracy: Score
    tokens_kept: float
    tokens_prefilled: float


def collect(runner: Runner, method: str, clips: Clips, videos: int) -> Answers:
    """Answer the questions of the first clips at every budget of a method."""
    entries = by_budget(runner.bundle.manifest, method)
    owners, right, margins = [], [], []
    runner.method = entries[0]
    for video in range(videos):
        session = runner.open(clips.file(video))
        asked = clips.questions(video)
        given = []
        for entry in entries:
            session.methods = (entry,)
            given.append([session.ask(question.text) for question in asked])
        for question, answers in zip(asked, zip(*given, strict=True), strict=True):
            owners.append(video)
            right.append([answer.answer == question.answer for answer in answers])
            margins.append([answer.answer_margin for answer in answers])
        progress(f"{method}: {video + 1} of {videos} clips")
    budgets = np.array([entry.budget for entry in entries])
    return Answers(budgets, np.array(owners), np.array(right), np.array(margins))


def tried(answers: Answers, entry: AutoEntry) -> NDArray[np.bool_]:
    """[Q, K] budgets auto begins an answer at; the last of them gives it."""
    columns = np.flatnonzero(np.isin(answers.budgets, entry.budgets))
    found = np.zeros(answers.right.shape, bool)
    doubtful = np.ones(len(found), bool)
    for column in columns:
        found[:, column] = doubtful
        doubtful = doubtful & (answers.margins[:, column] < entry.margin)
    return found


def outcome(answers: Answers, found: NDArray[np.bool_]) -> Outcome:
    """Of the budgets tried [Q, K]."""
    last = answered_at(found)
    right = answers.right[np.arange(len(last)), last]
    results = [Result(int(video), bool(hit), {}) for video, hit in zip(answers.videos, right, strict=True)]
    return Outcome(score(results), float(answers.budgets[last].mean()), float((found @ answers.budgets).mean()))


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
    right = answers.right[np.arange(len(found)), answered_at(found)].astype(np.float64)
    gain = right - answers.right[:, -1].astype(np.float64)
    _, clip = np.unique(answers.videos, return_inverse=True)
    by_clip = np.bincount(clip, weights=gain)
    return float(gain.mean() - by_clip.std() * np.sqrt(len(by_clip)) / len(gain))


def answered_at(found: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[Q] the last column tried of [Q, K]."""
    return found.shape[1] - 1 - found[:, ::-1].argmax(1)


def cross_validated(answers: Answers, drop: float) -> Outcome:
    """What auto does on each half of the clips as the other half calibrates it."""
    odd = answers.videos % 2 == 1
    found = np.zeros(answers.right.shape, bool)
    for half in (odd, ~odd):
        found[half] = tried(part(answers, half), calibrate(part(answers, ~half), drop))
    return outcome(answers, found)


def part(answers: Answers, chosen: NDArray[np.bool_]) -> Answers:
    """Some of the questions."""
    return Answers(answers.budgets, answers.videos[chosen], answers.right[chosen], answers.margins[chosen])


def write_entries(bundle: Bundle, entries: dict[str, AutoEntry]) -> None:
    """Put what was found into a bundle's manifest, beside other methods'."""
    manifest = replace(bundle.manifest, auto={**bundle.manifest.auto, **entries})
    write_whole(bundle.path / "manifest.json", manifest.to_json())


def report(name: str, entry: AutoEntry, asked: int, rows: list[tuple[str, Outcome]]) -> dict[str, Any]:
    """A method's table as JSON."""
    outcomes = [{"budget": label, **asdict(found)} for label, found in rows]
    return {"method": name, "auto": asdict(entry), "questions": asked, "outcomes": outcomes}


def progress(text: str) -> None:
    """One line on stderr that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Calibrate methods and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", metavar="DIR", help="bundle to use (default: the embedded one)")
    parser.add_argument("--method", action="append", metavar="NAME", help="may be repeated (default: every method)")
    parser.add_argument("--videos", type=int, default=150, metavar="N", help="clips of the dev split (default: 150)")
    parser.add_argument("--questions", type=int, default=8, metavar="N", help="most questions a clip (default: 8)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the dev world (default: 7)")
    parser.add_argument("--drop", type=float, default=1.0, metavar="POINTS", help="accuracy to give up (default: 1)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--folder", metavar="DIR", help="where the clips are kept (default: nowhere)")
    parser.add_argument("--write", action="store_true", help="write what was found into the bundle's manifest")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()

    runner = Runner(args.bundle, threads=args.threads)
    held = dict.fromkeys(entry.name for entry in runner.bundle.manifest.methods)
    several = [name for name in args.method or held if len(by_budget(runner.bundle.manifest, name)) > 1]
    entries, reports = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        clips = Clips("dev", args.seed, args.questions, Path(args.folder or temporary))
        for name in several:
            answers = collect(runner, name, clips, args.videos)
            entries[name] = calibrate(answers, args.drop)
            budgets = answers.budgets.tolist()
            rows = [(str(b), outcome(answers, tried(answers, AutoEntry((b,), 0.0)))) for b in budgets]
            rows.append(("auto", cross_validated(answers, args.drop)))
            reports.append((name, len(answers.videos), rows))
    progress("")
    if args.json:
        print(json.dumps([report(name, entries[name], asked, rows) for name, asked, rows in reports]))
    else:
        for name, asked, rows in reports:
            print(f"\n{name}: {asked} questions about {args.videos} clips of the dev split, seed {args.seed}\n")
            chosen = " and ".join(map(str, entries[name].budgets))
            print(f"auto tries {chosen} tokens, by a margin of {entries[name].margin:g}\n")
            print("| budget | accuracy, % | tokens kept | tokens prefilled |\n|---|---|---|---|")
            for label, found in rows:
                accuracy = found.accuracy
                interval = f"{100 * accuracy.accuracy:.1f} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"
                print(f"| {label} | {interval} | {found.tokens_kept:.1f} | {found.tokens_prefilled:.1f} |")
    if args.write:
        write_entries(runner.bundle, entries)


if __name__ == "__main__":
    main()
