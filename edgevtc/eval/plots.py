"""The figures of a report: accuracy against retention, against time to first token, and method by method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgevtc.eval.examiner import FULL
from edgevtc.eval.intervals import Score
from edgevtc.eval.report import CellResult, Report
from edgevtc.eval.svg import Drawing, Point, Scale, spread

__all__ = ["FIGURES", "FLOORS", "HIGHLIGHTS", "by_method", "by_retention", "by_ttft"]

#: Methods drawn in colour: those of the papers that the project follows.
HIGHLIGHTS = {"infomerge": "first", "holitom": "second", "ustc": "third"}
#: Methods that look at nothing in the video: what all others must beat.
FLOORS = ("uniform", "frames", "random")

WIDTH, HEIGHT = 760, 600
LEFT, RIGHT, TOP, BOTTOM = 58, 158, 62, 54
#: Room between names, for the names of all methods and for the few and larger ones of a narrow page.
GAP, NARROW_GAP = 16.0, 27.0

Where = Callable[[CellResult], float]


def kind_of(method: str) -> str:
    """The class of a method's line."""
    if method in FLOORS:
        return f"floor {method}"
    return "full" if method == FULL else HIGHLIGHTS.get(method, "minor")


def curves(report: Report) -> dict[str, list[CellResult]]:
    """Method → its cells by falling budget; those drawn last, on top, come last. Without the full tokens."""
    found: dict[str, list[CellResult]] = {}
    for result in sorted(report.cells, key=lambda result: -result.cell.budget):
        if result.cell.method != FULL:
            found.setdefault(result.cell.method, []).append(result)
    rank = {method: len(found) + place for place, method in enumerate((*FLOORS, *reversed(HIGHLIGHTS)))}
    return dict(sorted(found.items(), key=lambda item: rank.get(item[0], 0)))


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f} %"


def accuracy_scale(report: Report, start: float, end: float, controls: Sequence[Score] = ()) -> Scale:
    """Accuracy from the lowest interval to the highest, in whole tens of percent."""
    scores = [*controls, *(result.accuracy for result in report.cells)]
    low = math.floor(10 * min(score.low for score in scores))
    high = math.ceil(10 * max(score.high for score in scores))
    return Scale(low / 10, max(high, low + 1) / 10, start, end)


def by_retention(report: Report) -> str:
    """Accuracy against the share of visual tokens kept, which falls to the right."""
    names = ", ".join((FULL, *curves(report)))
    drawing = Drawing(
        WIDTH,
        HEIGHT,
        "Accuracy against visual tokens kept",
        f"Lines fall from all {report.arguments.tokens_total} tokens to few; methods: {names}.",
    )
    ratios = sorted({result.cell.retention_ratio for result in report.cells}, reverse=True)
    across = Scale(ratios[0], min(ratios[-1], 0.99 * ratios[0]), LEFT, WIDTH - RIGHT, log=True)
    ticks = [(across(ratio), f"{100 * ratio:g}") for ratio in ratios]
    draw(drawing, report, lambda result: across(result.cell.retention_ratio), ticks, "visual tokens kept, %")
    return drawing.svg()


def by_ttft(report: Report) -> str:
    """Accuracy against the measured time to first token, which falls to the right."""
    drawing = Drawing(
        WIDTH,
        HEIGHT,
        "Accuracy against time to first token",
        f"Median times on {report.arguments.device}, one thread; methods: {', '.join((FULL, *curves(report)))}.",
    )
    times = [result.ttft_s for result in report.cells]
    slowest, fastest = max(times) * 1.02, min(times) / 1.02
    across = Scale(slowest, fastest, LEFT, WIDTH - RIGHT, log=True)
    ticks = [(across(value), f"{1000 * value:g}") for value in round_values(1000 * fastest, 1000 * slowest)]
    draw(drawing, report, lambda result: across(result.ttft_s), ticks, "time to first token, ms (faster to the right)")
    return drawing.svg()


def round_values(low: float, high: float) -> list[float]:
    """Some seven round numbers between two, divided by 1000."""
    step = 10 ** math.floor(math.log10((high - low) / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 7)
    first = math.ceil(low / step)
    return [number * step / 1000 for number in range(first, math.floor(high / step) + 1)]


def draw(drawing: Drawing, report: Report, where: Where, ticks: Sequence[tuple[float, str]], label: str) -> None:
    """Axes, the lines of all methods, and their names at the right."""
    up = accuracy_scale(report, HEIGHT - BOTTOM, TOP, (report.blind, report.shuffled_video))
    right = WIDTH - RIGHT
    drawing.text((16, 28), f"{label_of(report)}", "title")
    axes(drawing, up, ticks, label)
    lines = curves(report)
    full = report.cells[0]
    for name, control in (("blind: words alone", report.blind), ("shuffled video", report.shuffled_video)):
        y = up(control.accuracy)
        drawing.line([(LEFT, y), (right, y)], "line minor random", f"{name} {percent(control.accuracy)}")
        drawing.text((LEFT + 6, y - 4), f"{name} {100 * control.accuracy:.0f}", "small faint halo wide")
    y = up(full.accuracy.accuracy)
    band = [[(LEFT, up(edge)), (right, up(edge))] for edge in (full.accuracy.high, full.accuracy.low)]
    drawing.area(band[0], band[1], "full area")
    drawing.line([(LEFT, y), (right, y)], "line full", tooltip(full))
    for method, results in lines.items():
        kind = kind_of(method)
        points = [(where(result), up(result.accuracy.accuracy)) for result in results]
        if method in HIGHLIGHTS:
            edges = [[(where(r), up(e(r))) for r in results] for e in (highest, lowest)]
            drawing.area(edges[0], edges[1], f"{kind} area")
        elif method in FLOORS:
            for result, (x, _) in zip(results, points, strict=True):
                drawing.line([(x, up(lowest(result))), (x, up(highest(result)))], "line floor whisker")
        drawing.line([(where(full), y), *points], f"line {kind}", method)
        for result, point in zip(results, points, strict=True):
            drawing.dot(point, 3.6 if method in HIGHLIGHTS else 2.4, f"{kind.split()[0]} dot", tooltip(result))
    ends = {FULL: (right, y)} | {m: (where(r[-1]), up(r[-1].accuracy.accuracy)) for m, r in lines.items()}
    name_lines(drawing, ends, "wide", GAP)
    name_lines(drawing, {m: end for m, end in ends.items() if kind_of(m) != "minor"}, "narrow", NARROW_GAP)


def label_of(report: Report) -> str:
    """What the vertical axis says, as the figure's heading."""
    questions = report.cells[0].accuracy.questions
    return f"Accuracy, %: {questions} questions on {report.videos} {report.arguments.split} clips"


def highest(result: CellResult) -> float:
    """Upper end of a cell's interval."""
    return result.accuracy.high


def lowest(result: CellResult) -> float:
    """Lower end of a cell's interval."""
    return result.accuracy.low


def axes(drawing: Drawing, up: Scale, ticks: Sequence[tuple[float, str]], label: str) -> None:
    """Grid, numbers and the label below."""
    right = WIDTH - RIGHT
    tens = range(round(10 * up.low), round(10 * up.high) + 1)
    for ten in tens:
        y = up(ten / 10)
        drawing.line([(LEFT, y), (right, y)], "grid")
        shown = "faint" if len(tens) < 7 or ten % 2 == 0 else "faint wide"
        drawing.text((LEFT - 8, y + 5), str(10 * ten), shown, "end")
    last = {"wide": -math.inf, "narrow": -math.inf}
    for x, text in sorted(ticks):
        drawing.line([(x, up.start), (x, up.end)], "grid")
        for page, room in (("wide", 22), ("narrow", 44)):
            if x - last[page] >= room:
                drawing.text((x, up.start + (20 if page == "wide" else 25)), text, f"faint {page}", "middle")
                last[page] = x
    drawing.text(((LEFT + right) / 2, HEIGHT - 6), label, "faint wide", "middle")
    drawing.text((WIDTH / 2, HEIGHT - 6), label, "faint narrow", "middle")


def name_lines(drawing: Drawing, ends: dict[str, Point], page: str, gap: float) -> None:
    """Names beside the ends of lines, none over another, each led to its line."""
    places = spread([y for _, y in ends.values()], gap, TOP, HEIGHT - BOTTOM)
    x = WIDTH - RIGHT + 18
    for (method, end), y in zip(ends.items(), places, strict=True):
        kind = kind_of(method).split()[0]
        drawing.line([end, (x - 4, y)], f"line leader {kind} {page}")
        drawing.text((x, y + gap * 0.3), method, f"{kind} {page}")


def tooltip(result: CellResult) -> str:
    """A cell in words."""
    score, cell = result.accuracy, result.cell
    return (
        f"{cell.method}, {cell.budget} tokens ({100 * cell.retention_ratio:g} %): {percent(score.accuracy)}, "
        f"{percent(score.low)} to {percent(score.high)}; first token after {1000 * result.ttft_s:.0f} ms"
    )


def by_method(report: Report) -> str:
    """One small figure a method: its line and interval before all others'."""
    lines = curves(report)
    order = [*(m for m in HIGHLIGHTS if m in lines), *sorted(m for m in lines if m not in (*HIGHLIGHTS, *FLOORS))]
    order += [m for m in FLOORS if m in lines]
    columns, width, height, heading = 3, WIDTH / 3, 172.0, 44.0
    drawing = Drawing(
        WIDTH,
        round(heading + height * -(-len(order) // columns)),
        "Accuracy method by method",
        f"Each method with its 95 % interval, the others in grey; the level line is all tokens. Methods: "
        f"{', '.join((FULL, *order))}.",
    )
    drawing.text((16, 28), "Accuracy, %, against visual tokens kept, %", "title")
    ratios = sorted({result.cell.retention_ratio for result in report.cells}, reverse=True)
    for place, method in enumerate(order):
        left, above = 16 + width * (place % columns), heading + height * (place // columns)
        across = Scale(ratios[0], min(ratios[-1], 0.99 * ratios[0]), left + 24, left + width - 26, log=True)
        up = accuracy_scale(report, above + height - 34, above + 30)
        panel(drawing, report, lines, method, across, up)
    return drawing.svg()


def panel(
    drawing: Drawing, report: Report, lines: dict[str, list[CellResult]], method: str, across: Scale, up: Scale
) -> None:
    """One method before the others."""
    drawing.text((across.start - 24, up.end - 10), method, "name")
    for level in (up.low, up.high):
        drawing.line([(across.start, up(level)), (across.end, up(level))], "grid")
        drawing.text((across.start - 4, up(level) + 4), f"{100 * level:.0f}", "small faint wide", "end")
    for ratio in (across.low, 0.1, across.high):
        if across.high <= ratio <= across.low:
            drawing.text((across(ratio), up.start + 16), f"{100 * ratio:g}", "small faint wide", "middle")
    full = report.cells[0]

    def points(results: Sequence[CellResult], of: Where = lambda result: result.accuracy.accuracy) -> list[Point]:
        return [(across(result.cell.retention_ratio), up(of(result))) for result in (full, *results)]

    level = up(full.accuracy.accuracy)
    drawing.line([(across.start, level), (across.end, level)], "line full", tooltip(full))
    for other, results in lines.items():
        if other != method:
            drawing.line(points(results), "line minor back-line", other)
    kind = HIGHLIGHTS.get(method, "floor" if method in FLOORS else "first")
    drawing.area(points(lines[method], highest), points(lines[method], lowest), f"{kind} area")
    drawing.line(points(lines[method]), f"line {kind}", method)
    for result in lines[method]:
        at = (across(result.cell.retention_ratio), up(result.accuracy.accuracy))
        drawing.dot(at, 2.6, f"{kind} dot", tooltip(result))
    # On a narrow page numbers are too wide to stand left of the axis: they go where no line comes, since lines fall.
    drawing.text((across.end, up.end - 6), f"{100 * up.high:.0f}", "small faint narrow", "end")
    drawing.text((across.start + 2, up.start - 5), f"{100 * up.low:.0f}", "small faint halo narrow")
    for ratio, anchor in ((across.low, "start"), (across.high, "end")):
        drawing.text((across(ratio), up.start + 24), f"{100 * ratio:g}", "small faint narrow", anchor)


#: File → what draws it.
FIGURES: dict[str, Callable[[Report], str]] = {
    "accuracy-retention.svg": by_retention,
    "accuracy-ttft.svg": by_ttft,
    "accuracy-methods.svg": by_method,
}
