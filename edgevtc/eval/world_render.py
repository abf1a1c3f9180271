"""Pictures of scenes, at any size and any times."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevtc.eval.world_scene import RADII, SIDE, SIGN_HALF, Scene

__all__ = ["NOISE_LEVELS", "RGB", "Renderer", "shape_mask", "stamp"]

#: Standard deviation of the sensor noise, in grey levels.
NOISE_LEVELS = (0.5, 2.0, 4.0, 8.0)
RGB = np.array(
    [
        [225, 30, 30],
        [30, 180, 40],
        [40, 70, 235],
        [240, 225, 30],
        [150, 40, 190],
        [245, 140, 20],
        [30, 215, 225],
        [250, 250, 250],
    ],
    np.float32,
)
STAR = 5
_MARGIN = 64
_NOISE_STEP = 40009
_GLYPHS = (  # 3×5 cells, row by row
    "111101101101111",
    "010110010010111",
    "111001111100111",
    "111001111001111",
    "101101111001001",
    "111100111001111",
    "111100111101111",
    "111001001010010",
    "111101111101111",
    "111101111001111",
)

Array = NDArray[np.float32]


@lru_cache(maxsize=256)
def shape_mask(shape: int, width: int, height: int) -> Array:
    """Coverage [height, width, 1] of a shape that fills the box (antialiased by 4×4 samples); shape 5 is the star."""
    over = 4
    y, x = np.mgrid[0 : height * over, 0 : width * over].astype(np.float32)
    x = (x - (width * over - 1) / 2) / ((width - 1) / 2 * over)
    y = (y - (height * over - 1) / 2) / ((height - 1) / 2 * over)
    distance = np.hypot(x, y)
    if shape == 0:
        inside = distance <= 1
    elif shape == 1:
        inside = (abs(x) <= 0.85) & (abs(y) <= 0.85)
    elif shape == 2:
        inside = (y <= 0.8) & (y >= -0.95 + 1.9 * abs(x))
    elif shape == 3:
        inside = ((abs(x) <= 0.33) & (abs(y) <= 1)) | ((abs(y) <= 0.33) & (abs(x) <= 1))
    elif shape == 4:
        inside = (distance <= 1) & (distance >= 0.55)
    else:
        fifth = np.pi / 5
        ray = np.abs((np.arctan2(x, -y) % (2 * fifth)) - fifth) / fifth
        inside = distance <= 0.45 + 0.6 * ray**2
    return inside.reshape(height, over, width, over).mean((1, 3), dtype=np.float32)[..., None]


@lru_cache(maxsize=256)
def _plate(digit: int, width: int, height: int) -> Array:
    """Grey levels [height, width, 1] of a sign: dark digit on a light plate with a dark rim."""
    plate = np.full((21, 17), 235, np.uint8)
    plate[[0, -1]] = plate[:, [0, -1]] = 60
    glyph = np.array([int(bit) for bit in _GLYPHS[digit]]).reshape(5, 3)
    plate[3:18, 4:13][np.kron(glyph, np.ones((3, 3), int)) > 0] = 25
    if (width, height) != (17, 21):
        plate = np.asarray(Image.fromarray(plate).resize((width, height), Image.Resampling.BILINEAR))
    return plate.astype(np.float32)[..., None]


def stamp(frame: Array, x: float, y: float, half: tuple[float, float], mask: Array | None, rgb: Array) -> None:
    """Blend `rgb` (a colour, or a picture of the box's size) into the frame [H, W, 3], clipped at its border."""
    height, width = frame.shape[:2]
    left, top = round(float(x) - half[0]), round(float(y) - half[1])
    box = (mask if mask is not None else rgb).shape
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + box[1], width), min(top + box[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    part = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    region = frame[y0:y1, x0:x1]
    if mask is None:
        region[:] = rgb[part]
    else:
        region += mask[part] * (rgb - region)


class Renderer:
    """Backgrounds and noise of one world; renders its scenes."""

    def __init__(self, rng: np.random.Generator, textures: int = 48) -> None:
        self.textures: Array = np.stack([_texture(rng) for _ in range(textures)])
        self._noise: Array = rng.standard_normal(1 << 20, dtype=np.float32)

    def frames(
        self,
        scene: Scene,
        ticks: NDArray[np.floating] | None = None,
        size: tuple[int, int] = (SIDE, SIDE),
        first: int = 0,
    ) -> NDArray[np.uint8]:
        """Frames [F, H, W, 3] of the scene at the ticks [F] (default: the model's), size = (width, height).

        `first` is the index of the first frame where a video is rendered in parts: it continues the noise.
        """
        ticks = np.arange(scene.ticks, dtype=np.float32) if ticks is None else ticks
        scale = np.array(size) / SIDE
        rng = np.random.default_rng(scene.seed)
        marks = len(scene.things) + len(scene.flashes) + len(scene.signs)
        tints = rng.normal(size=(marks, 3)).astype(np.float32) * 8
        frames = self._background(scene, ticks, size)
        for thing, tint in zip(scene.things, tints, strict=False):
            late, path = thing.changed(ticks), thing.at(ticks)
            for t in np.flatnonzero(thing.visible(ticks)):
                color, radius = (thing.last_color, thing.last_size) if late[t] else (thing.color, thing.size)
                _stamp_shape(frames[t], path[t], thing.shape, RADII[radius], RGB[color] + tint, scale)
        for flash, tint in zip(scene.flashes, tints[len(scene.things) :], strict=False):
            for t in np.flatnonzero((ticks >= flash.enters - 0.5) & (ticks < flash.leaves - 0.5)):
                _stamp_shape(frames[t], (flash.x, flash.y), STAR, RADII[1], RGB[flash.color] + tint, scale)
        for sign, tint in zip(scene.signs, tints[len(scene.things) + len(scene.flashes) :], strict=True):
            box = [max(3, round((2 * half + 1) * s)) for half, s in zip(SIGN_HALF, scale, strict=True)]
            plate = _plate(sign.digit, box[0], box[1]) + tint
            x, y = (np.array([sign.x, sign.y]) + 0.5) * scale - 0.5
            for t in np.flatnonzero((ticks >= sign.enters - 0.5) & (ticks < sign.leaves - 0.5)):
                stamp(frames[t], x, y, ((box[0] - 1) / 2, (box[1] - 1) / 2), None, plate)
        frames *= scene.brightness
        self.add_noise(frames, NOISE_LEVELS[scene.noise], int(rng.integers(1 << 30)) + first * _NOISE_STEP)
        return np.clip(frames, 0, 255, out=frames).astype(np.uint8)

    def add_noise(self, frames: Array, sigma: float, offset: int) -> None:
        """Add sensor noise of one scene pixel's grain, in place."""
        height, width = frames.shape[1:3]
        grain = SIDE * SIDE * 3
        rows, columns = np.arange(height) * SIDE // height, np.arange(width) * SIDE // width
        for t, frame in enumerate(frames):
            start = (offset + t * _NOISE_STEP) % (len(self._noise) - grain)
            noise = self._noise[start : start + grain].reshape(SIDE, SIDE, 3) * sigma
            frame += noise if (height, width) == (SIDE, SIDE) else noise[rows[:, None], columns]

    def _background(self, scene: Scene, ticks: NDArray[np.floating], size: tuple[int, int]) -> Array:
        texture = self.textures[scene.texture]
        width, height = size
        whole = SIDE + _MARGIN
        if size != (SIDE, SIDE):
            target = (round(width * whole / SIDE), round(height * whole / SIDE))
            image = Image.fromarray(np.clip(texture, 0, 255).astype(np.uint8))
            texture = np.asarray(image.resize(target, Image.Resampling.BICUBIC)).astype(np.float32)
        corner = np.array(scene.corner) + np.array(scene.pan) * ticks[:, None]
        limit = np.array([texture.shape[1] - width, texture.shape[0] - height])
        corners = np.clip(np.rint(corner * np.array(size) / SIDE), 0, limit).astype(int)
        return np.stack([texture[y : y + height, x : x + width] for x, y in corners])


def _stamp_shape(
    frame: Array, centre: Array | tuple[float, float], shape: int, radius: int, rgb: Array, scale: NDArray[np.floating]
) -> None:
    width, height = (max(3, round((2 * radius + 1) * s)) for s in scale)
    x, y = (np.asarray(centre) + 0.5) * scale - 0.5
    stamp(frame, x, y, ((width - 1) / 2, (height - 1) / 2), shape_mask(shape, width, height), rgb)


def _texture(rng: np.random.Generator) -> Array:
    """A dull background [160, 160, 3]: blotches at four scales, sometimes stripes or checks."""
    side = SIDE + _MARGIN
    relief = np.zeros((side, side, 1), np.float32)
    for block in (4, 8, 16, 32):
        coarse = rng.normal(size=(side // block + 1,) * 2).astype(np.float32)
        relief[..., 0] += np.kron(coarse, np.ones((block, block), np.float32))[:side, :side] * rng.uniform(0, 7)
    if rng.random() < 0.4:
        period, checks = rng.integers(6, 20), rng.random() < 0.5
        y, x = np.mgrid[0:side, 0:side]
        relief[..., 0] += ((x // period + (y // period if checks else 0)) % 2) * rng.uniform(5, 22)
    base = rng.uniform(45, 150) + rng.uniform(-14, 14, 3)
    return np.clip(base + relief + rng.normal(size=(1, 1, 3)) * 3, 10, 200).astype(np.float32)
