"""Draw what the monitor's dev videos said while a run was trained: accuracy by type over minutes of training.

    python scripts/train/curves.py runs/world/c runs/world/d --types digit beside left -o docs/images/training.svg

Stages are drawn one after the other in the order given.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from edgevtc.eval.svg import Drawing, Point, Scale, spread

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 56, 130, 52, 48
STYLES = ("first", "second", "third", "floor uniform", "floor frames", "floor random")


def monitored(folders: Sequence[Path]) -> tuple[list[tuple[float, dict[str, float]]], list[tuple[float, str]]]:
    """(Minutes, accuracy by type) of every look at the monitor, and (minutes, name) of the stages' starts."""
    looks, starts, done = [], [], 0.0
    for folder in folders:
        starts.append((done, folder.name))
        seconds = 0.0
        for line in (folder / "log.jsonl").read_text().splitlines():
            record = json.loads(line)
            seconds = max(seconds, record["seconds"])
            if record.get("event") == "monitor":
                looks.append((done + record["seconds"] / 60, record))
        done += seconds / 60
    return sorted(looks, key=lambda look: look[0]), starts


def draw(
    looks: Sequence[tuple[float, dict[str, float]]], starts: Sequence[tuple[float, str]], types: Sequence[str]
) -> str:
    """The figure."""
    names = ("total", *types)
    drawing = Drawing(WIDTH, HEIGHT, "Accuracy while training", f"Dev videos; lines: {', '.join(names)}.")
    drawing.text((16, 28), "Accuracy on dev videos while training, %", "title")
    across = Scale(0, looks[-1][0], LEFT, WIDTH - RIGHT)
    up = Scale(0, 1, HEIGHT - BOTTOM, TOP)
    for ten in range(0, 11, 2):
        drawing.line([(LEFT, up(ten / 10)), (WIDTH - RIGHT, up(ten / 10))], "grid")
        drawing.text((LEFT - 8, up(ten / 10) + 5), str(10 * ten), "faint", "end")
    for index, (minutes, name) in enumerate(starts):
        drawing.line([(across(minutes), TOP), (across(minutes), HEIGHT - BOTTOM)], "grid")
        drawing.text((across(minutes) + 4, TOP + 12 + 16 * (index % 2)), f"stage {name}", "small faint")
        drawing.text((across(minutes), HEIGHT - BOTTOM + 20), f"{minutes:.0f}", "faint", "middle")
    drawing.text((across(looks[-1][0]), HEIGHT - BOTTOM + 20), f"{looks[-1][0]:.0f}", "faint", "middle")
    drawing.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6), "minutes of training", "faint", "middle")
    ends: list[tuple[str, str, Point]] = []
    for name, style in zip(names, ("full", *STYLES), strict=False):
        points = [(across(minutes), up(scores[name])) for minutes, scores in looks if name in scores]
        drawing.line(points, f"line {style}", name)
        for point in points:
            drawing.dot(point, 2.4, f"{style.split()[0]} dot")
        ends.append((name, style.split()[0], points[-1]))
    for (name, style, end), y in zip(ends, spread([e[2][1] for e in ends], 18, TOP, HEIGHT - BOTTOM), strict=True):
        x = WIDTH - RIGHT + 16
        drawing.line([end, (x - 4, y)], f"line leader {style}")
        drawing.text((x, y + 5), name, style)
    return drawing.svg()


def main() -> None:
    """Parse arguments, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", type=Path, nargs="+", help="folders with a log.jsonl, in order")
    parser.add_argument(
        "--types", nargs="*", default=[], help=f"question types beside the total, {len(STYLES)} at most"
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    looks, starts = monitored(options.stages)
    options.out.write_text(draw(looks, starts, options.types[: len(STYLES)]))


if __name__ == "__main__":
    main()
