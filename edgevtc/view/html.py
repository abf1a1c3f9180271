"""One HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevtc.view.scene import DROPPED, PALETTE, Panel, Scene, colour_groups

__all__ = ["render_html"]

TEMPLATE = "page.html.j2"
JPEG_QUALITY = 85

#: Least width of a frame in the page, and the gap to the next, in rem: 24 tokens across are then 6 pixels each.
FRAME_REM, GAP_REM = 9.0, 0.6


def render_html(scene: Scene) -> bytes:
    """The page as UTF-8: frames inside it, no script or style from elsewhere, readable without JavaScript."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = resources.files("edgevtc.view").joinpath(TEMPLATE).read_text(encoding="utf-8")
    height, width = scene.frames[0].shape[:2]
    page = environment.from_string(source).render(
        scene=scene,
        palette=PALETTE,
        images=[jpeg_base64(frame) for frame in scene.frames],
        aspect=f"{width} / {height}",
        row_lengths=row_lengths(len(scene.frames)),
        panels=[layers(panel, scene.grid) for panel in scene.panels],
        tallest=max(max(panel.kept_per_frame) for panel in scene.panels),
        data={
            "grid": scene.grid,
            "times_s": [f"{time_s:.2f}" for time_s in scene.times_s],
            "panels": [
                {
                    "method": panel.method,
                    "positions": panel.positions.tolist(),
                    "counts": panel.counts.tolist(),
                    "assignment": panel.assignment.tolist(),
                    "segments": panel.segments,
                }
                for panel in scene.panels
            ],
        },
    )
    return page.encode()


def row_lengths(frames: int) -> list[tuple[int, float, float | None]]:
    """How many frames stand in a row, by the width there is: for each number of rows the fewest, so 8, not 9, of 16.

    Returns:
        (columns, from this width, below that one) in rem, rising; None for the last, which no width is too much for.
    """
    lengths = sorted({-(-frames // rows) for rows in range(1, frames + 1)})
    least = [0.0, *(round(columns * FRAME_REM + (columns - 1) * GAP_REM, 1) for columns in lengths[1:])]
    return list(zip(lengths, least, [*least[1:], None], strict=True))


def jpeg_base64(frame: NDArray[np.uint8]) -> str:
    """A frame as the text of a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def layers(panel: Panel, grid: tuple[int, int]) -> list[dict[str, Any]]:
    """For each frame, SVG paths in units of a token: what is dropped, and by colour what is folded in and kept.

    Returns:
        T dictionaries: `dropped`, a path; `folded`, colour → path; `kept`, colour → path, −1 for single tokens.
    """
    colours = colour_groups(panel, grid)
    frames, tokens = panel.assignment.shape
    own = np.zeros(frames * tokens, bool)
    own[panel.positions] = True
    own_colour = np.full(frames * tokens, -1)
    own_colour[panel.positions] = colours
    found = []
    for index, row in enumerate(panel.assignment):
        span = slice(index * tokens, (index + 1) * tokens)
        folded = np.where((row != DROPPED) & ~own[span], colours[row], -1)
        kept = np.flatnonzero(own[span])
        found.append(
            {
                "dropped": squares(np.flatnonzero((row == DROPPED) & ~own[span]), grid[1]),
                "folded": {
                    int(colour): squares(np.flatnonzero(folded == colour), grid[1])
                    for colour in np.unique(folded[folded >= 0])
                },
                "kept": {
                    int(colour): squares(kept[own_colour[span][kept] == colour], grid[1])
                    for colour in np.unique(own_colour[span][kept])
                },
            }
        )
    return found


def squares(tokens: Iterable[int], columns: int) -> str:
    """A path of one unit square a token."""
    return "".join(f"M{token % columns} {token // columns}h1v1h-1z" for token in tokens)
