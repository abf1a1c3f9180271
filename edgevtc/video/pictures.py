"""Still pictures as sources of frames, one image or a folder of them; and the resize that every frame goes through."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgevtc.errors import ConfigError, VideoError, choices
from edgevtc.video.sampling import VideoInfo

__all__ = ["MAX_PIXELS", "RESAMPLE_FILTERS", "PictureReader", "check_pixels", "check_resize", "is_picture", "resize"]

#: Twice an 8K picture. What is larger is refused before its pixels are decoded.
MAX_PIXELS = 2**26

RESAMPLE_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

#: Pillow's readers that are tried; each one more is one more parser of foreign bytes. GIF is left to the video side.
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})

#: What Pillow raises on damaged files, by its own documentation and by fuzzing (it sets aside what a length claims).
PILLOW_ERRORS = (
    MemoryError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    KeyError,
    IndexError,
    TypeError,
)


def is_picture(path: Path) -> bool:
    """Whether a file is a still picture, by its name or by its first bytes."""
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return True
    try:
        with Image.open(path, formats=PICTURE_FORMATS):
            return True
    except (*PILLOW_ERRORS, Image.DecompressionBombError):
        return False


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which ``frame9`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def check_pixels(name: str, width: int, height: int) -> None:
    """Refuse pictures whose decoded size would not fit a small device.

    Raises:
        VideoError: The picture is larger than `MAX_PIXELS`, or empty.
    """
    if width < 1 or height < 1:
        raise VideoError(f"{name}: the picture is {width}x{height} pixels: it holds nothing to look at")
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{name}: the picture is {width}x{height} pixels, above the limit of {MAX_PIXELS // 2**20} Mi pixels: "
            "scale it down first"
        )


def check_resize(size: tuple[int, int] | None, resample: str) -> None:
    """Refuse a size or a filter that `resize` cannot serve.

    Raises:
        ConfigError: The filter is unknown, or a side is not positive or too large.
    """
    if resample not in RESAMPLE_FILTERS:
        raise ConfigError(f"unknown resample filter {resample!r}: {choices(RESAMPLE_FILTERS)}")
    if size is not None and not (len(size) == 2 and min(size) >= 1 and size[0] * size[1] <= MAX_PIXELS):
        raise ConfigError(f"size is {size}: it must be (height, width) in pixels, such as (384, 384)")


def resize(image: NDArray[np.uint8], size: tuple[int, int] | None, resample: str) -> NDArray[np.uint8]:
    """Resize an RGB picture exactly as Pillow, and with it the models' own processors, does.

    Args:
        image: [H, W, 3] uint8.
        size: (height, width) wanted; None leaves the picture as it is.
        resample: One of `RESAMPLE_FILTERS`.

    Returns:
        [height, width, 3] uint8, contiguous.
    """
    if size is None or image.shape[:2] == tuple(size):
        return np.ascontiguousarray(image)
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize((size[1], size[0]), RESAMPLE_FILTERS[resample]))


def load_picture(path: Path) -> NDArray[np.uint8]:
    """Decode one picture to [H, W, 3] uint8 RGB, upright by its EXIF orientation.

    Raises:
        VideoError: The file is not a picture, is damaged, or is too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What Pillow would warn of is either an error here or harmless.
            with Image.open(path, formats=PICTURE_FORMATS) as picture:
                check_pixels(path.name, *picture.size)
                upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I;16"):
            # Pillow's own conversion clips at 255 instead of scaling.
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        return np.array(upright.convert("RGB"))
    except Image.DecompressionBombError:
        raise VideoError(f"{path.name}: the picture is above the limit of {MAX_PIXELS // 2**20} Mi pixels") from None
    except PILLOW_ERRORS as error:
        raise VideoError(f"{path.name} cannot be read as a picture ({type(error).__name__}): is it damaged?") from None


class PictureReader:
    """Pictures as a clip of one frame a second.

    Args:
        source: One picture, or a folder of pictures, taken in natural order of their names.

    Raises:
        VideoError: There is no picture, or the first one cannot be read.
    """

    def __init__(self, source: Path) -> None:
        self.warnings: list[str] = []
        if source.is_dir():
            self.paths = sorted(
                (p for p in source.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()), key=natural_key
            )
            if not self.paths:
                raise VideoError(
                    f"{source}: no picture is in this folder; names end in {choices(sorted(PICTURE_SUFFIXES))}"
                )
        else:
            self.paths = [source]
        height, width, _ = load_picture(self.paths[0]).shape
        self.info = VideoInfo(
            width=width,
            height=height,
            duration_s=float(len(self.paths)),
            fps=1.0,
            num_frames=len(self.paths),
            codec="image",
            container="folder" if source.is_dir() else source.suffix.lower().lstrip("."),
        )

    def frames_at(self, indices: Sequence[int]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield (seconds from the start, [H, W, 3] uint8 RGB) for each of the ascending frame numbers."""
        loaded, image = -1, None
        for index in indices:
            if image is None or index != loaded:
                loaded, image = index, load_picture(self.paths[index])
            yield float(index), image

    def close(self) -> None:
        """Nothing is held open."""
