"""One contact sheet, 1200 pixels wide."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from edgevtc.view.scene import DROPPED, PALETTE, Panel, Scene, colour_groups

__all__ = ["SHEET_WIDTH", "render_png"]

#: Pixels: legible in a document's column without scrolling.
SHEET_WIDTH = 1200

MARGIN, GUTTER, GAP = 24, 28, 8
FRAME_MIN, FRAME_MAX = 130, 480
STRIP_HEIGHT, CAPTION_HEIGHT, TAPE_HEIGHT = 44, 20, 16
PAGE, INK, SOFT, BAR = "#ffffff", "#1c1b19", "#625f59", "#3d5a80"

#: Segments by turns: their ground.
TAPE = ("#c9d5e4", "#e8dccb")

#: How much of a frame's own light is left where a token was dropped, and where it was folded in under a colour.
DROPPED_LIGHT, FOLDED_LIGHT, FOLDED_TINT = 0.2, 0.3, 0.3


def render_png(scene: Scene) -> bytes:
    """The sheet: a heading, then for each method its frames under a strip of tokens kept per frame."""
    width = (SHEET_WIDTH - 2 * MARGIN - GUTTER * (len(scene.panels) - 1)) // len(scene.panels)
    bodies = [draw_panel(panel, scene, width) for panel in scene.panels]
    heading = draw_heading(scene, SHEET_WIDTH - 2 * MARGIN)
    height = 2 * MARGIN + heading.height + max(body.height for body in bodies)
    sheet = Image.new("RGB", (SHEET_WIDTH, height), PAGE)
    sheet.paste(heading, (MARGIN, MARGIN))
    for index, body in enumerate(bodies):
        sheet.paste(body, (MARGIN + index * (width + GUTTER), MARGIN + heading.height))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw_heading(scene: Scene, width: int) -> Image.Image:
    """Clip, model and bundle; the question and the warnings where there are any; what the marks mean."""
    rows, columns = scene.grid
    facts = (
        f"{len(scene.frames)} frames of {rows} by {columns} tokens, {scene.model}, bundle {scene.bundle_sha256[:16]}"
    )
    warnings = [line for warning in scene.warnings for line in wrapped(f"warning: {warning}", 15, width)]
    below = 58 if scene.question else 32
    picture = Image.new("RGB", (width, below + 20 * len(warnings) + 38), PAGE)
    draw = ImageDraw.Draw(picture)
    write(draw, (0, 0), scene.video, 24, INK, width // 2)
    write(draw, (width, 6), facts, 15, SOFT, width // 2 - GAP, anchor="ra")
    if scene.question:
        write(draw, (0, 32), f"asked: {scene.question}", 17, INK, width)
    for number, line in enumerate(warnings):
        write(draw, (0, below + 20 * number), line, 15, INK, width)
    x, y = 1, picture.height - 33
    sample = np.full((16, 16, 3), (226, 196, 158), np.uint8)
    marks = (
        ("kept alone", sample, "#ffffff"),
        ("kept, with others folded in", sample, PALETTE[1]),
        ("folded into a slot of its colour", shade(sample, 1), None),
        ("dropped", shade(sample, DROPPED), None),
    )
    for label, swatch, outline in marks:
        picture.paste(Image.fromarray(swatch), (x, y))
        draw.rectangle((x - 1, y - 1, x + 16, y + 16), outline=SOFT)  # white on white would not be seen
        if outline:
            draw_outline(draw, (x, y, x + 15, y + 15), outline)
        write(draw, (x + 23, y - 1), label, 14, SOFT, width)
        x += 47 + round(font(14).getlength(label))
    return picture


def draw_panel(panel: Panel, scene: Scene, width: int) -> Image.Image:
    """One method: its account, the strip, the frames."""
    frames = len(scene.frames)
    columns = max(1, min(math.ceil(math.sqrt(frames)), width // FRAME_MIN))
    cell = min(FRAME_MAX, (width - GAP * (columns - 1)) // columns)
    high, wide = scene.frames[0].shape[:2]
    frame_height = max(1, round(cell * high / wide))
    tape = TAPE_HEIGHT + 2 if scene.segmented else 0
    step = tape + frame_height + CAPTION_HEIGHT + GAP
    top = 52 + (26 if scene.question else 0)
    start = top + STRIP_HEIGHT + tape + 26
    picture = Image.new("RGB", (width, start + step * math.ceil(frames / columns)), PAGE)
    draw = ImageDraw.Draw(picture)
    write(draw, (0, 0), panel.method, 21, INK, width)
    share = 100 * panel.kept / panel.total
    account = f"{panel.kept} of {panel.total} tokens ({share:.1f} %), {panel.merged} merged; {panel.dropped} dropped"
    write(draw, (0, 28), f"{account}; positions {panel.positions_mode}", 15, SOFT, width)
    if scene.question:
        write(draw, (0, 52), f"answer: {panel.answer}", 17, INK, width)
    draw_strip(draw, panel, scene, (0, top, width, top + STRIP_HEIGHT))
    segment_of = {
        frame: (number, segment)
        for number, segment in enumerate(panel.segments)
        for frame in range(segment.first, segment.last + 1)
    }
    colours = colour_groups(panel, scene.grid)
    for index, (frame, time_s) in enumerate(zip(scene.frames, scene.times_s, strict=True)):
        x, y = (index % columns) * (cell + GAP), start + (index // columns) * step + tape
        if index in segment_of:
            number, segment = segment_of[index]
            # The tape runs on over the gap to the next frame of the segment, as far as the row goes.
            runs_on = GAP if index < segment.last and (index + 1) % columns else 0
            label = f"segment {number + 1}: {segment.kept} kept" if index == segment.first else ""
            draw_tape(draw, (x, y - tape, x + cell + runs_on, y - 2), number, label)
        picture.paste(draw_frame(frame, panel, index, colours, scene.grid, (cell, frame_height)), (x, y))
        write(draw, (x, y + frame_height + 2), f"{time_s:.2f} s", 13, SOFT, cell)
        write(
            draw, (x + cell, y + frame_height + 2), f"{panel.kept_per_frame[index]} kept", 13, SOFT, cell, anchor="ra"
        )
    return picture


def draw_strip(draw: ImageDraw.ImageDraw, panel: Panel, scene: Scene, box: tuple[int, int, int, int]) -> None:
    """A bar a frame, as high as the tokens kept in it; one scale for all methods."""
    left, top, right, bottom = box
    counts = panel.kept_per_frame
    tallest = max(max(other.kept_per_frame) for other in scene.panels)
    slot = (right - left) / len(counts)
    for index, count in enumerate(counts):
        height = round((bottom - top - 16) * count / tallest)
        x0, x1 = left + round(index * slot + 0.12 * slot), left + round((index + 1) * slot - 0.12 * slot)
        if height:
            draw.rectangle((x0, bottom - height, max(x0, x1 - 1), bottom - 1), fill=BAR)
        if slot >= 22:
            write(draw, ((x0 + x1) / 2, bottom - height - 3), str(count), 12, SOFT, round(slot), anchor="ms")
    draw.line((left, bottom, right - 1, bottom), fill=SOFT)
    what = "tokens kept per frame"
    for number, segment in enumerate(panel.segments):
        x0, x1 = left + round(segment.first * slot), left + round((segment.last + 1) * slot) - 2
        draw_tape(draw, (x0, bottom + 2, x1, bottom + 2 + TAPE_HEIGHT), number, str(segment.kept))
        what = "tokens kept per frame, and per segment"
    below = bottom + 3 + (TAPE_HEIGHT + 2 if scene.segmented else 0)
    write(draw, ((left + right) / 2, below), what, 12, SOFT, right - left, anchor="ma")


def draw_tape(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], number: int, label: str) -> None:
    """A piece of a segment's tape, with what there is room for of its label."""
    left, top, right, _ = box
    draw.rectangle((*box[:2], max(left, right - 1), box[3] - 1), fill=TAPE[number % len(TAPE)])
    if font(12).getlength(label) <= right - left - 4:
        write(draw, (left + 3, top), label, 12, INK, right - left)


def draw_frame(
    frame: NDArray[np.uint8],
    panel: Panel,
    index: int,
    colours: NDArray[np.int64],
    grid: tuple[int, int],
    size: tuple[int, int],
) -> Image.Image:
    """A frame of `size` (width, height) under its tokens: bright, coloured or dim, and an outline where a slot is."""
    (rows, columns), (width, height) = grid, size
    pixels = np.array(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
    x_edges = [round(column * width / columns) for column in range(columns + 1)]
    y_edges = [round(row * height / rows) for row in range(rows + 1)]
    own = {
        int(raster) % (rows * columns): slot
        for slot, raster in enumerate(panel.positions)
        if raster // (rows * columns) == index
    }
    boxes = []
    for token, slot in enumerate(panel.assignment[index]):
        row, column = divmod(token, columns)
        y, x = slice(y_edges[row], y_edges[row + 1]), slice(x_edges[column], x_edges[column + 1])
        if token in own:
            boxes.append(((x.start, y.start, x.stop - 1, y.stop - 1), int(colours[own[token]])))
        else:
            pixels[y, x] = shade(pixels[y, x], int(colours[slot]) if slot != DROPPED else DROPPED)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for box, colour in boxes:
        draw_outline(draw, box, PALETTE[colour] if colour >= 0 else "#ffffff")
    return picture


def draw_outline(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: str) -> None:
    """A coloured frame inside a box with a dark line on its inner side: it stands out from any picture."""
    left, top, right, bottom = box
    if min(right - left, bottom - top) >= 8:
        draw.rectangle((left + 2, top + 2, right - 2, bottom - 2), outline="#000000")
        draw.rectangle(box, outline=colour, width=2)
    elif right > left and bottom > top:
        draw.rectangle(box, outline=colour)


def shade(pixels: NDArray[np.uint8], colour: int) -> NDArray[np.uint8]:
    """Pixels of a token that was folded in, under its group's colour, or dropped, dimmed."""
    if colour == DROPPED:
        return (pixels * DROPPED_LIGHT).astype(np.uint8)
    tint = np.array(ImageColor.getrgb(PALETTE[colour])) * FOLDED_TINT
    return (pixels * FOLDED_LIGHT + tint).astype(np.uint8)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The typeface that comes with Pillow, so that the sheet looks alike everywhere."""
    return ImageFont.load_default(size)


def wrapped(text: str, size: int, width: int) -> list[str]:
    """Text in lines of at most `width`, between words."""
    face, lines = font(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and face.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: str,
    width: int,
    anchor: str = "la",
) -> None:
    """One line of text, cut with three dots where it would be wider than `width`."""
    face = font(size)
    line = " ".join(text.split())
    if face.getlength(line) > width:
        while line and face.getlength(line + "...") > width:
            line = line[:-1]
        line += "..."
    draw.text(place, line, fill=colour, font=face, anchor=anchor)
