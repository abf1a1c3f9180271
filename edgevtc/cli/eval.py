"""``edgevtc eval``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevtc.cli.command import Command, add_bundle_argument, add_json_argument, print_json, status

if TYPE_CHECKING:
    from edgevtc.eval.intervals import Estimate, Score
    from edgevtc.eval.journal import Journal
    from edgevtc.eval.report import Report
    from edgevtc.eval.run import Evaluation

__all__ = ["Eval"]

#: Option that measuring has → its value where it is not given. None of them goes with --report.
MEASURING: dict[str, Any] = {
    "bundle": None,
    "method": None,
    "retention_ratio": None,
    "videos": 100,
    "questions": 10,
    "split": "dev",
    "seed": 0,
    "device": "cpu",
    "jobs": 1,
    "out": "edgevtc-eval",
    "clips": None,
}

#: Scenes the blind control learns.
BLIND_SCENES = 8000


class Eval(Command):
    """Measure accuracy against retention.

    Methods at retention ratios answer questions about fresh clips of the synthetic world: rendered to H.264 files,
    read, encoded once, compressed and answered as ask does it. A run that was ended at any moment goes on with the
    same command; its folder then holds results.json, results.csv, results.md and figures.
    """

    name = "eval"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        add_bundle_argument(parser)
        parser.add_argument(
            "--method", action="append", metavar="NAME,…", help="compression methods (default: all of the bundle)"
        )
        parser.add_argument(
            "--retention-ratio", action="append", metavar="R,…", help="shares of the visual tokens (default: all held)"
        )
        for name, kind, metavar, text in (
            ("videos", int, "N", "clips"),
            ("questions", int, "K", "most questions a clip"),
            ("split", str, "SPLIT", "dev, to choose by, or test, for a result"),
            ("seed", int, "SEED", "seed of the world"),
            ("device", str, "NAME", "where graphs run"),
            ("jobs", int, "N", "processes of one thread"),
            ("out", str, "FOLDER", "records, clips and report"),
        ):
            parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=f"{text} (default: {MEASURING[name]})")
        parser.add_argument("--clips", metavar="FOLDER", help="clips, shared by several runs (default: in --out)")
        parser.add_argument("--report", metavar="FOLDER", help="measure nothing, write a run's report again")
        parser.add_argument(
            "--blind-scenes",
            type=int,
            default=BLIND_SCENES,
            metavar="N",
            help=f"scenes the blind control learns (default: {BLIND_SCENES})",
        )
        form = parser.add_mutually_exclusive_group()
        add_json_argument(form)  # type: ignore[arg-type]  # a group takes arguments like a parser
        form.add_argument("--csv", action="store_true", help="print CSV on stdout instead of text")

    def run(self, args: argparse.Namespace) -> int:
        """Measure what is missing, report, and say where the files are."""
        from edgevtc.errors import ConfigError
        from edgevtc.eval.journal import Journal
        from edgevtc.eval.pages import csv_text, json_value, write_report
        from edgevtc.eval.report import make_report
        from edgevtc.eval.run import Evaluation

        if args.blind_scenes < 1:
            raise ConfigError(f"{args.blind_scenes} scenes is not valid: give 1 or more")
        given = [name for name in MEASURING if getattr(args, name) is not None]
        if args.report is not None and given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ConfigError(f"--report measures nothing and takes the run as it is: leave out {options}")
        console = status()
        if args.report is None:
            for name in MEASURING.keys() - given:
                setattr(args, name, MEASURING[name])
            evaluation = Evaluation(
                args.bundle,
                listed(args.method),
                ratios(args.retention_ratio),
                args.videos,
                args.questions,
                args.split,
                args.seed,
                args.device,
                args.clips,
            )
            journal, videos = measure(evaluation, args.out, args.jobs), args.videos
        else:
            with Journal(args.report) as journal:
                videos = None  # all
        with console.status("reporting") if console.is_terminal else console:
            report = make_report(journal, videos, args.blind_scenes)
            files = write_report(report, Path(journal.folder), command_line(report, args.blind_scenes))
        if args.json:
            print_json(json_value(report))
        elif args.csv:
            print(csv_text(report), end="")
        else:
            show(report)
            print()
            print("\n".join(str(file) for file in files))
        return 0


def listed(given: list[str] | None) -> list[str] | None:
    """The names of options that may be repeated and hold several, by commas; None where none was given."""
    return None if given is None else [name.strip() for text in given for name in text.split(",") if name.strip()]


def ratios(given: list[str] | None) -> list[float] | None:
    """The numbers of such options.

    Raises:
        ConfigError: One is no number.
    """
    from edgevtc.errors import ConfigError

    try:
        return None if (texts := listed(given)) is None else [float(text) for text in texts]
    except ValueError as error:
        raise ConfigError(f"--retention-ratio takes numbers above 0 and up to 1 ({error})") from None


def measure(evaluation: Evaluation, folder: str, jobs: int) -> Journal:
    """Run it with a bar on a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from edgevtc.eval.run import evaluate

    console = status()
    columns = (TextColumn("clips"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=300) as bar:
        task = bar.add_task("clips", total=evaluation.videos)
        return evaluate(evaluation, folder, jobs, lambda done, total: bar.update(task, completed=done, total=total))


def command_line(report: Report, blind_scenes: int) -> str:
    """The command that makes these numbers, whatever command printed them."""
    from edgevtc.eval.pages import grid

    found = report.arguments
    shares, rows = grid(report)
    words = ["edgevtc", "eval", *(["--bundle", found.bundle] if found.bundle else []), "--method", ",".join(rows)]
    if all(len(row) == len(shares) for row in rows.values()):
        words += ["--retention-ratio", ",".join(f"{ratio:g}" for ratio in shares)]
    words += ["--split", found.split, "--seed", str(found.seed), "--videos", str(report.videos)]
    words += ["--questions", str(found.questions)]
    for name, value, default in (
        ("--device", found.device, MEASURING["device"]),
        ("--jobs", found.jobs, MEASURING["jobs"]),
        ("--blind-scenes", blind_scenes, BLIND_SCENES),
    ):
        words += [name, str(value)] if value != default else []
    return shlex.join(words)


def show(report: Report) -> None:
    """The main tables."""
    from edgevtc.cli.tables import print_facts, print_table
    from edgevtc.eval.pages import grid

    found, full = report.arguments, report.cells[0]
    print_facts(
        {
            "model": f"{found.model} (bundle {found.bundle_sha256[:12]})",
            "asked": f"{full.accuracy.questions} questions on {report.videos} clips, {found.split} seed {found.seed}",
            "all tokens": full.accuracy,
            "blind": report.blind,
            "shuffled video": report.shuffled_video,
            "time to first token": f"{full.ttft_s:.3f} s with all tokens; {report.open_s:.3f} s to the encoder's end",
        }
    )
    shares, rows = grid(report)
    heads = [f"{100 * ratio:g}" for ratio in shares]
    for title, of in (
        ("accuracy, %", lambda result: shared(result.accuracy.accuracy, result.accuracy)),
        ("of full, %", lambda result: shared(result.of_full and result.of_full.value, result.of_full)),
        ("gap, %", lambda r: shared(r.gap_recovered and r.gap_recovered.value, r.gap_recovered)),
    ):
        lines = [[method, *(of(row[r]) if r in row else "" for r in shares)] for method, row in rows.items()]
        if any(cell for line in lines for cell in line[1:]):
            print()
            print_table([title, *heads], lines, right=heads)


def shared(value: float | None, interval: Score | Estimate | None) -> str:
    """A share in percent with half the width of its interval; nothing where there is none."""
    return "" if value is None or interval is None else f"{100 * value:.1f}±{50 * (interval.high - interval.low):.1f}"
