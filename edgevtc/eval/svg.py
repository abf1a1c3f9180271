"""Figures as SVG, written by hand: shapes with classes, and one style for light, dark, wide and narrow pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["STYLE", "Drawing", "Scale", "spread"]

Point = tuple[float, float]

#: Class → stroke or fill in light, in dark. The colours are Okabe and Ito's, lighter in the dark.
COLOURS = {
    "first": ("#0072b2", "#56b4e9"),
    "second": ("#d55e00", "#f0935a"),
    "third": ("#009e73", "#3fd0a5"),
    "floor": ("#3d4450", "#d5dae2"),
    "minor": ("#aab1bb", "#5d6672"),
    "full": ("#3d4450", "#d5dae2"),
}
BACKGROUND, INK, FAINT, GRID = (
    ("#ffffff", "#0d1117"),
    ("#1c2128", "#e9edf2"),
    ("#5b6470", "#a3acb8"),
    ("#e6e9ee", "#242b35"),
)


def colours(which: int) -> str:
    """The rules that depend on the theme, 0 for light and 1 for dark."""
    rules = [
        f".back{{fill:{BACKGROUND[which]}}} text{{fill:{INK[which]}}} .faint{{fill:{FAINT[which]}}}",
        f".grid{{stroke:{GRID[which]}}} .halo{{stroke:{BACKGROUND[which]}}}",
    ]
    for name, pair in COLOURS.items():
        rules.append(f".{name}.line{{stroke:{pair[which]}}} .{name}.area,.{name}.dot{{fill:{pair[which]}}}")
        text = FAINT[which] if name == "minor" else INK[which] if name in ("floor", "full") else pair[which]
        rules.append(f"text.{name}{{fill:{text}}}")
    return "".join(rules)


STYLE = (
    "text{font:15px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    "text.title{font-size:19px;font-weight:600} text.small{font-size:13px} text.minor{font-size:13px}"
    "text.first,text.second,text.third,text.name{font-weight:600}"
    ".line{fill:none;stroke-width:1.2;stroke-linejoin:round} .grid{fill:none;stroke-width:1}"
    ".first.line,.second.line,.third.line{stroke-width:3} .floor.line{stroke-width:1.8} .full.line{stroke-width:1.5}"
    ".line.back-line{stroke-width:1;opacity:.55}"
    ".line.leader{stroke-width:.8;opacity:.55} .line.whisker{stroke-width:1.2;opacity:.8}"
    ".area{opacity:.16} .uniform{stroke-dasharray:7 4} .frames{stroke-dasharray:2 3} .random{stroke-dasharray:9 3 2 3}"
    ".halo{paint-order:stroke;stroke-width:4px;stroke-linejoin:round} .narrow{display:none}"
    + colours(0)
    + "@media (prefers-color-scheme:dark){"
    + colours(1)
    + "}"
    # A figure in a page is asked for its own width: on a phone fewer names, and larger.
    "@media (max-width:540px){text,text.small{font-size:24px} text.title{font-size:27px} .wide{display:none}"
    ".narrow{display:inline} .first.line,.second.line,.third.line{stroke-width:5} .floor.line{stroke-width:3}}"
)


class Drawing:
    """A figure, filled from back to front.

    Args:
        width: Units, pixels where it is shown at its own size.
        height: Likewise.
        title: Heading.
        description: What a reader who cannot see it is told.
    """

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self.width, self.height = width, height
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' role="img" aria-labelledby="title description">',
            f'<title id="title">{escape(title)}</title><desc id="description">{escape(description)}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="back" width="{width}" height="{height}" rx="6"/>',
        ]

    def line(self, points: Sequence[Point], kind: str, title: str = "") -> None:
        """A line through the points."""
        self._shape("polyline", f'class="{kind}" points="{path(points)}"', title)

    def area(self, upper: Sequence[Point], lower: Sequence[Point], kind: str) -> None:
        """The area between two lines."""
        self._shape("polygon", f'class="{kind}" points="{path([*upper, *reversed(lower)])}"')

    def dot(self, at: Point, radius: float, kind: str, title: str = "") -> None:
        """A point."""
        self._shape("circle", f'class="{kind}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:g}"', title)

    def text(self, at: Point, content: str, kind: str = "", anchor: str = "start", turned: bool = False) -> None:
        """A line of text; `turned` reads upwards."""
        x, y = at
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"{turn}>{escape(content)}</text>'
        )

    def svg(self) -> str:
        """The document."""
        return "\n".join([*self._parts, "</svg>"]) + "\n"

    def _shape(self, element: str, attributes: str, title: str = "") -> None:
        inside = f"<title>{escape(title)}</title>" if title else ""
        self._parts.append(f"<{element} {attributes}>{inside}</{element}>")


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on a stretch of the figure from `start` to `end`; logarithmic where `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value stands."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def path(points: Sequence[Point]) -> str:
    """Points as SVG writes them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels near the wanted ones, at least `gap` apart, within [low, high] as far as they fit."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[tuple[float, int]] = []  # labels that touch: sum of where each wants their first to be, and number
    for index in order:
        block = (wanted[index], 1)
        while blocks and top(blocks[-1], gap, low, high) + gap * blocks[-1][1] > top(block, gap, low, high):
            total, count = blocks.pop()
            block = (total + block[0] - block[1] * gap * count, count + block[1])
        blocks.append(block)
    stacked = [top(block, gap, low, high) + gap * step for block in blocks for step in range(block[1])]
    return [place for _, place in sorted(zip(order, stacked, strict=True))]


def top(block: tuple[float, int], gap: float, low: float, high: float) -> float:
    """Where a block's first label stands."""
    total, count = block
    return max(low, min(total / count, high - gap * (count - 1)))
