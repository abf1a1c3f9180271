"""A report as files: JSON and CSV for machines, Markdown and figures for readers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgevtc.eval.examiner import FULL
from edgevtc.eval.intervals import Estimate, Score
from edgevtc.eval.plots import FIGURES, FLOORS, HIGHLIGHTS
from edgevtc.eval.report import FLOOR, CellResult, Group, Report
from edgevtc.files import write_whole

__all__ = ["csv_text", "grid", "json_value", "markdown", "write_report"]

#: Retention ratio of the tables by question type and by slice; the nearest measured one is taken.
DETAIL_RATIO = 0.10

#: The method that differences are taken from.
BASELINE = "uniform"


def write_report(report: Report, folder: Path, command: str) -> list[Path]:
    """Write results.json, results.csv, the figures and results.md, each whole.

    Args:
        report: The numbers.
        folder: Where.
        command: What made them, for the page.
    """
    texts = {
        "results.json": json.dumps(json_value(report), indent=1) + "\n",
        "results.csv": csv_text(report),
        **{name: figure(report) for name, figure in FIGURES.items()},
        "results.md": markdown(report, command),
    }
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]


def json_value(report: Report) -> dict[str, Any]:
    """All numbers, as JSON has them."""
    return asdict(report)


def csv_text(report: Report) -> str:
    """One line a method and budget."""
    stream = io.StringIO()
    table = csv.DictWriter(stream, list(csv_row(report, report.cells[0])), lineterminator="\n")
    table.writeheader()
    for result in report.cells:
        table.writerow(csv_row(report, result))
    return stream.getvalue()


def csv_row(report: Report, result: CellResult) -> dict[str, object]:
    """A cell's columns."""
    row: dict[str, object] = {
        "method": result.cell.method,
        "retention_ratio": result.cell.retention_ratio,
        "budget": result.cell.budget,
        "tokens_total": report.arguments.tokens_total,
        "positions": result.cell.positions,
        "videos": report.videos,
        "questions": result.accuracy.questions,
        "accuracy": rounded(result.accuracy.accuracy),
        "accuracy_low": rounded(result.accuracy.low),
        "accuracy_high": rounded(result.accuracy.high),
    }
    for name, estimate in (
        ("of_full", result.of_full),
        ("gap_recovered", result.gap_recovered),
        (f"minus_{BASELINE}", difference(report, result, BASELINE)),
    ):
        for suffix in ("value", "low", "high"):
            key = name if suffix == "value" else f"{name}_{suffix}"
            row[key] = "" if estimate is None else rounded(getattr(estimate, suffix))
    return row | {name: rounded(getattr(result, name)) for name in ("compress_s", "prefill_s", "ttft_s")}


def rounded(value: float) -> float:
    """Without the digits that mean nothing, nor a sign of zero."""
    return round(value, 6) + 0.0


def difference(report: Report, result: CellResult, other: str) -> Estimate | None:
    """By how much a cell is more accurate than another method at its budget; None where that was not measured."""
    for entry in report.differences:
        if entry.budget == result.cell.budget:
            if (entry.method, entry.other) == (result.cell.method, other):
                return entry.accuracy
            if (entry.other, entry.method) == (result.cell.method, other):
                found = entry.accuracy
                return Estimate(-found.value, -found.high, -found.low)
    return None


def grid(report: Report) -> tuple[list[float], dict[str, dict[float, CellResult]]]:
    """Retention ratios from large to small, and method → ratio → cell; the full tokens are left out."""
    rows: dict[str, dict[float, CellResult]] = {}
    for result in report.cells[1:]:
        rows.setdefault(result.cell.method, {})[result.cell.retention_ratio] = result
    return sorted({ratio for row in rows.values() for ratio in row}, reverse=True), rows


def markdown(report: Report, command: str) -> str:
    """Tables, figures, and the command that made them."""
    arguments, full = report.arguments, report.cells[0].accuracy
    parts = [
        f"`{arguments.model}`, {arguments.split} split of the world, seed {arguments.seed}: {full.questions} questions "
        f"on {report.videos} H.264 clips, {arguments.tokens_total} visual tokens before compression. Bundle "
        f"`{arguments.bundle_sha256[:12]}`. Brackets are 95 % intervals, bootstrap over clips; differences and shares "
        "are paired: the same clips are drawn for both.",
        f"```console\n$ {command}\n```",
        f"With all tokens **{share(full)}** are right. Controls: `blind` (to each question's exact words the answer "
        f"most frequent in training) {share(report.blind)}; `shuffled_video` (all tokens, of another clip) "
        f"{share(report.shuffled_video)}.",
        *(f"![{alt}]({name})" for name, alt in ALTERNATIVES.items()),
    ]
    if len(report.cells) > 1:
        parts += [
            "### Accuracy, %\n\n" + cell_table(report, lambda result: share(result.accuracy, "")),
            "### Accuracy as a share of the accuracy with all tokens, %\n\n"
            + cell_table(report, lambda result: share(result.of_full, "")),
        ]
    if any(result.gap_recovered for result in report.cells):
        parts.append(
            f"### Share of the gap between `{FLOOR}` and all tokens that is recovered, %\n\n"
            + cell_table(report, lambda result: share(result.gap_recovered, ""))
        )
    if any(difference(report, result, BASELINE) for result in report.cells):
        parts.append(
            f"### More accurate than `{BASELINE}` at the same budget, points\n\n"
            "In bold where the interval leaves out 0.\n\n"
            + cell_table(report, lambda result: points(difference(report, result, BASELINE)), (BASELINE,))
        )
    parts += [
        auto_table(report),
        times_table(report),
        group_table(report, "By question type", {"": report.types}),
        group_table(report, "By slice of clips", report.slices),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


#: Figure → what it shows, in words.
ALTERNATIVES = {
    "accuracy-retention.svg": "Accuracy of every method against the share of visual tokens kept",
    "accuracy-ttft.svg": "Accuracy of every method against the measured time to first token",
    "accuracy-methods.svg": "Accuracy of each method with its interval, in a small figure of its own",
}


def share(value: Score | Estimate | None, unit: str = " %") -> str:
    """A share in percent with its interval; a dash where there is none."""
    if value is None:
        return "–"
    centre = value.accuracy if isinstance(value, Score) else value.value
    return f"{100 * centre:.1f}{unit} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def points(value: Estimate | None) -> str:
    """A difference in points with its interval."""
    if value is None:
        return "–"
    mark = "**" if value.low > 0 or value.high < 0 else ""
    return f"{mark}{signed(value.value)}{mark} [{signed(value.low)}, {signed(value.high)}]"


def signed(value: float) -> str:
    """A difference in points with its sign, which zero has not."""
    shown = f"{100 * value:+.1f}"
    return "0.0" if float(shown) == 0 else shown


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell_table(report: Report, write: Any, without: Sequence[str] = ()) -> str:
    """Methods × retention ratios."""
    ratios, rows = grid(report)
    return table(
        ["method", *(f"{100 * ratio:g} %" for ratio in ratios)],
        [
            [f"`{method}`", *(write(row[ratio]) if ratio in row else "–" for ratio in ratios)]
            for method, row in rows.items()
            if method not in without
        ],
    )


def auto_table(report: Report) -> str:
    """Methods whose budget each question chooses, beside a fixed budget of no fewer tokens."""
    if not report.auto:
        return ""
    lines = [
        [
            f"`{auto.method}`",
            f"{auto.margin:g}",
            share(auto.accuracy, ""),
            f"{auto.tokens_kept:.1f}",
            f"{auto.tokens_prefilled:.1f}",
            str(auto.fixed_budget),
            points(auto.minus_fixed),
        ]
        for auto in report.auto
    ]
    heads = [
        "method",
        "margin",
        "accuracy, %",
        "tokens kept",
        "prefilled",
        "fixed budget",
        "auto more accurate, points",
    ]
    return (
        "### Budget by the answer's margin (`--budget auto`)\n\n"
        "Each question begins at the smallest budget and takes the next while its answer's margin is below the "
        "threshold. *Prefilled* counts every budget tried; the fixed budget is the smallest of the same ones with no "
        "fewer tokens.\n\n" + table(heads, lines)
    )


def times_table(report: Report) -> str:
    """Median times by method at the largest, the detailed and the smallest budget."""
    ratios, rows = grid(report)
    if not ratios:
        return ""
    shown = sorted({ratios[0], near(ratios), ratios[-1]}, reverse=True)
    full = report.cells[0]
    lines = [[f"`{FULL}`", "100 %", *milliseconds(full)]]
    for method, row in rows.items():
        lines += [[f"`{method}`", f"{100 * r:g} %", *milliseconds(row[r])] for r in shown if r in row]
    return (
        "### Times, ms\n\n"
        f"Medians over the clips, on {report.arguments.device}, one thread, beside the run's other processes: compare "
        f"them with one another. Reading, decoding and encoding a clip takes {1000 * report.open_s:.0f} ms of every "
        "time to first token.\n\n" + table(["method", "kept", "compressor", "prefill", "time to first token"], lines)
    )


def milliseconds(result: CellResult) -> list[str]:
    """A cell's times."""
    return [
        f"{1000 * result.compress_s:.2f}",
        f"{1000 * result.prefill_s:.2f}",
        f"{1000 * result.ttft_s:.0f}",
    ]


def near(ratios: Sequence[float]) -> float:
    """The ratio that is shown in detail."""
    return min(ratios, key=lambda ratio: abs(ratio - DETAIL_RATIO))


def group_table(report: Report, heading: str, groups: dict[str, dict[str, Group]]) -> str:
    """Accuracy by group with all tokens, of the controls, and of the main methods at one budget."""
    ratios, rows = grid(report)
    ratio = near(ratios) if ratios else 1.0
    shown = [method for method in (*HIGHLIGHTS, *FLOORS) if ratio in rows.get(method, {})]
    lines = []
    for name, values in groups.items():
        for value, group in values.items():
            cells = [group.cells[report.cells[0].cell.name]]
            cells += [group.cells[rows[method][ratio].cell.name] for method in shown]
            other = "–" if group.shuffled_video is None else f"{100 * group.shuffled_video.accuracy:.0f}"
            controls = [f"{100 * group.blind.accuracy:.0f}", other]
            label = f"{name}: {value}" if name else value
            lines.append([label, str(group.questions), *controls, *(brief(score) for score in cells)])
    heads = ["", "questions", "blind", "shuffled", "all tokens", *(f"`{method}`" for method in shown)]
    at = f", methods at {100 * ratio:g} %" if shown else ""
    return f"### {heading}{at}: accuracy, %\n\n{table(heads, lines)}"


def brief(score: Score) -> str:
    """Accuracy in whole percent with its interval."""
    return f"{100 * score.accuracy:.0f} [{100 * score.low:.0f}, {100 * score.high:.0f}]"
