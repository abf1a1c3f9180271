"""Footage from outside the world: procedural clutter that shows none of its scenes, for a model to decline.

Dead leaves (overlapping shapes of all sizes, the simplest statistical model of natural pictures), coloured noise,
gradients and lines, standing, panned, zoomed, alive or cut.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgevtc.eval.world_scene import SIDE, TICKS

__all__ = ["CANNOT_TELL", "outside_frames"]

#: Answer to every question about what is not of this world.
CANNOT_TELL = "cannot tell"

_CANVAS = 2 * SIDE
Picture = NDArray[np.float32]


def outside_frames(rng: np.random.Generator) -> NDArray[np.uint8]:
    """One clip [16, 96, 96, 3]."""
    total = TICKS["video"]
    cuts = sorted(rng.integers(1, total, int(rng.choice(4, p=(0.6, 0.2, 0.1, 0.1)))).tolist())
    frames = [_shot(rng, end - start) for start, end in zip([0, *cuts], [*cuts, total], strict=True) if end > start]
    clip = np.concatenate(frames) * rng.uniform(0.6, 1.2) + rng.uniform(-20, 20)
    clip += rng.normal(size=clip.shape).astype(np.float32) * rng.choice([0.5, 2, 4, 8])
    return np.clip(clip, 0, 255).astype(np.uint8)


def _shot(rng: np.random.Generator, length: int) -> Picture:
    """Frames [length, 96, 96, 3] of one scenery; half of them move as a whole, a fifth come alive."""
    make = _KINDS[int(rng.integers(len(_KINDS)))]
    if rng.random() < 0.2:
        key = np.stack([make(rng) for _ in range(2)])[:, :SIDE, :SIDE]
        share = (np.linspace(0, 1, length, dtype=np.float32) * rng.uniform(0.2, 1))[:, None, None, None]
        return key[:1] * (1 - share) + key[1:] * share
    canvas = Image.fromarray(np.clip(make(rng), 0, 255).astype(np.uint8))
    span = rng.uniform(SIDE, 1.6 * SIDE) * np.ones(length)
    place = np.tile(rng.uniform(0, 20, 2), (length, 1))
    if rng.random() < 0.5:
        step = np.arange(length)[:, None] / TICKS["video"]
        span = span * (1 + rng.uniform(-0.3, 0.2) * step[:, 0])
        place = place + rng.uniform(-1, 1, 2) * step * 30
    span = np.clip(span, SIDE / 2, _CANVAS - 1)
    corner = np.clip(place, 0, _CANVAS - span[:, None])
    boxes = np.concatenate([corner, corner + span[:, None]], 1)
    frames = [canvas.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=tuple(box.tolist())) for box in boxes]
    return np.stack([np.asarray(frame, np.float32) for frame in frames])


def _palette(rng: np.random.Generator, number: int) -> Picture:
    """Colours [number, 3] around a few, mostly pale ones."""
    centres = rng.uniform(10, 245, (int(rng.integers(2, 6)), 1))
    centres = centres + rng.normal(size=(len(centres) if rng.random() < 0.5 else 1, 3)) * rng.uniform(5, 60)
    colors = centres[rng.integers(len(centres), size=number)] + rng.normal(size=(number, 3)) * rng.uniform(5, 35)
    return np.clip(colors, 0, 255).astype(np.float32)


def _leaves(rng: np.random.Generator) -> Picture:
    image = Image.new("RGB", (_CANVAS, _CANVAS))
    draw = ImageDraw.Draw(image)
    number = int(rng.integers(40, 400))
    radii = 3 * (1 - rng.random(number) * (1 - (3 / 70) ** 2)) ** -0.5  # density of 1/r³ from 3 to 70 px
    order = np.argsort(-radii) if rng.random() < 0.5 else np.arange(number)
    colors = _palette(rng, number).astype(int)
    draw.rectangle([0, 0, _CANVAS, _CANVAS], fill=tuple(colors[0].tolist()))
    for index in order:
        (x, y), (a, b) = rng.uniform(0, _CANVAS, 2), radii[index] * rng.uniform(0.4, 1.6, 2)
        box, fill = [x - a, y - b, x + a, y + b], tuple(colors[index].tolist())
        which = rng.random()
        if which < 0.5:
            draw.ellipse(box, fill=fill)
        elif which < 0.7:
            draw.rectangle(box, fill=fill)
        else:
            points = np.array([x, y]) + rng.normal(size=(int(rng.integers(3, 8)), 2)) * (a, b)
            draw.polygon([tuple(point) for point in points.tolist()], fill=fill)
    leaves = np.asarray(image, np.float32)
    return leaves * (0.4 + 0.6 * _gradient(rng) / 255).astype(np.float32) if rng.random() < 0.4 else leaves


def _noise(rng: np.random.Generator) -> Picture:
    """Noise with an amplitude of 1/f^a, a from 0.7 (fine) to 2 (clouds), grey or coloured."""
    frequency = np.hypot(np.fft.fftfreq(_CANVAS)[:, None], np.fft.rfftfreq(_CANVAS)[None])
    frequency[0, 0] = 1
    channels = 1 if rng.random() < 0.4 else 3
    white = np.fft.rfft2(rng.normal(size=(channels, _CANVAS, _CANVAS)))
    field = np.fft.irfft2(white / frequency ** rng.uniform(0.7, 2), s=(_CANVAS, _CANVAS))
    field = (field / field.std((1, 2), keepdims=True)).transpose(1, 2, 0)
    return (rng.uniform(40, 200, 3) + field * rng.uniform(10, 60)).astype(np.float32)


def _gradient(rng: np.random.Generator) -> Picture:
    """Four corner colours, smoothly mixed; flat where they are alike."""
    corners = _palette(rng, 4) if rng.random() < 0.8 else np.repeat(_palette(rng, 1), 4, 0)
    image = Image.fromarray(corners.reshape(2, 2, 3).astype(np.uint8)).resize(
        (_CANVAS, _CANVAS), Image.Resampling.BICUBIC
    )
    return np.asarray(image, np.float32)


def _lines(rng: np.random.Generator) -> Picture:
    """Strokes over a gradient: branches, wires, handwriting."""
    image = Image.fromarray(np.clip(_gradient(rng), 0, 255).astype(np.uint8))
    draw, colors = ImageDraw.Draw(image), _palette(rng, 8).astype(int)
    for _ in range(int(rng.integers(5, 80))):
        steps = rng.normal(size=(int(rng.integers(2, 7)), 2)) * rng.uniform(5, 60)
        points = rng.uniform(0, _CANVAS, 2) + np.cumsum(steps, 0)
        draw.line(
            [tuple(point) for point in points.tolist()],
            fill=tuple(colors[int(rng.integers(8))].tolist()),
            width=int(rng.integers(1, 6)),
        )
    return np.asarray(image, np.float32)


_KINDS: tuple[Callable[[np.random.Generator], Picture], ...] = (_leaves, _leaves, _leaves, _noise, _gradient, _lines)
