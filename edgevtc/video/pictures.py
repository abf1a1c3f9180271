"""Still pictures as sources of frames, one image or a folder of them; and the resize that every frame goes through."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from edgevtc.errors import ConfigError, VideoError, choices, one_line
from edgevtc.video.bounded import BoundedFile, OverrunError
from edgevtc.video.sampling import VideoInfo

__all__ = [
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "RESAMPLE_FILTERS",
    "PictureReader",
    "check_pixels",
    "check_resize",
    "is_picture",
    "resize",
]

#: Twice an 8K picture. What is larger is refused before its pixels are decoded.
MAX_PIXELS = 2**26
#: What comes before a picture's pixels: colour profiles have up to 16 MiB; a WebP is read whole.
MAX_HEADER_BYTES = 2**26
#: Pillow reads a header field by field, and some of its loops byte by byte.
MAX_HEADER_READS = 2**16
#: Seconds that a header, and then the pixels, may take.
PICTURE_TIMEOUT_S = 60.0
#: Rows that are copied at a time from Pillow's pictures, which have four bytes a pixel.
ROWS_AT_ONCE = 128
#: The time that Pillow takes over comments in a PPM of text grows with the square of what it reads at once.
PPM_READ = 4096

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
#: A file of these begins as a JPEG does, and is a video.
MOTION_JPEG_SUFFIXES = frozenset({".mjpeg", ".mjpg", ".mjpe"})
#: How pictures of `PICTURE_FORMATS` begin; WebP has its name eight bytes later.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PPM_SIGNATURE = re.compile(rb"P[1-6fy]\s")
#: The end of one JPEG and the beginning of another.
JPEG_SEAM = b"\xff\xd9\xff\xd8"
ORIENTATION = 0x0112  # in EXIF; from 5 on, width and height change places

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

#: Held while Pillow's switch for damaged pictures is on, which is one for the whole process.
SWITCHED = threading.Lock()


def is_picture(path: Path) -> bool:
    """Whether a file is to be read as a still picture, by its first bytes; animated PNGs and motion JPEG are videos.

    Raises:
        VideoError: It is a picture whose header does not end, or one that is too large.
    """
    with path.open("rb") as file:
        head = file.read(16)
    known = head.startswith(SIGNATURES) or PPM_SIGNATURE.match(head) or (head[:4] + head[8:12]) == b"RIFFWEBP"
    if not known or path.suffix.lower() in MOTION_JPEG_SUFFIXES:
        return False
    with open_picture(path) as picture:
        if picture.format == "JPEG" and path.suffix.lower() not in PICTURE_SUFFIXES:
            return not holds_several(picture, path)
        return not (picture.format == "PNG" and holds_several(picture, path))


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which ``frame9`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def check_pixels(name: str, width: int, height: int, limit: int | None = None) -> None:
    """Refuse pictures whose decoded size would not fit a small device.

    Raises:
        VideoError: The picture has more pixels than `limit`, which is `MAX_PIXELS` for single ones, or none.
    """
    limit = limit or MAX_PIXELS
    if width < 1 or height < 1:
        raise VideoError(f"{name}: the picture is {width}x{height} pixels: it holds nothing to look at")
    if width * height > limit:
        raise VideoError(
            f"{name}: the picture is {width}x{height} pixels, above the limit of {limit // 2**20} Mi pixels: "
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


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """A picture whose header has been read; what goes wrong then, and in the block, is a VideoError.

    Raises:
        VideoError: The file is not a picture, is damaged, does not end, or is too large.
    """
    try:
        with warnings.catch_warnings(), BoundedFile(path, raising=True) as file:
            warnings.simplefilter("ignore")  # What Pillow would warn of is either an error here or harmless.
            file.allow(MAX_HEADER_BYTES, MAX_HEADER_READS, PICTURE_TIMEOUT_S)
            with Image.open(file, formats=PICTURE_FORMATS) as picture:  # type: ignore[arg-type]  # reads, seeks, tells
                check_pixels(path.name, *picture.size)
                file.allow(seconds=PICTURE_TIMEOUT_S)
                if picture.format == "PPM":
                    file.limit_reads(PPM_READ)
                yield picture
    except OverrunError:
        raise VideoError(
            f"{path.name} cannot be read as a picture: its header has more than {MAX_HEADER_READS} fields or "
            f"{MAX_HEADER_BYTES // 2**20} MiB, or decoding it takes more than {PICTURE_TIMEOUT_S:g} s: save it anew"
        ) from None
    except Image.DecompressionBombError:
        raise VideoError(
            f"{path.name}: the picture is above the limit of {MAX_PIXELS // 2**20} Mi pixels: scale it down first"
        ) from None
    except PILLOW_ERRORS as error:
        raise VideoError(f"{path.name} cannot be read as a picture ({reason_of(error)}): is it damaged?") from None


def reason_of(error: Exception) -> str:
    """What Pillow's error says, without names of classes or objects."""
    if isinstance(error, OSError) and not isinstance(error, UnidentifiedImageError):
        return (error.strerror or one_line(error)).lower()
    return "what it holds is not what its first bytes say"


def holds_several(picture: Image.Image, path: Path) -> bool:
    """Whether a file has further pictures to look at; the previews and depth maps of cameras (MPO) are none."""
    if picture.format == "MPO":
        return False
    if picture.format != "JPEG":
        return bool(getattr(picture, "is_animated", False))
    with path.open("rb") as file:
        return JPEG_SEAM in file.read(MAX_HEADER_BYTES)


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) by the EXIF orientation, without decoding where that can be."""
    # Not PngImageFile's own getexif: that decodes the picture, for what may follow its pixels.
    if Image.Image.getexif(picture).get(ORIENTATION, 1) < 5:
        return picture.size
    if picture.format != "TIFF":
        return picture.height, picture.width
    # Whether Pillow turns a TIFF, and when, differs from one version to the next.
    ImageOps.exif_transpose(picture, in_place=True)
    return picture.size


def to_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """Decode a picture to [H, W, 3] uint8 RGB, upright by its EXIF orientation."""
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 instead of scaling.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    image = np.empty((picture.height, picture.width, 3), np.uint8)
    for top in range(0, picture.height, ROWS_AT_ONCE):
        bottom = min(top + ROWS_AT_ONCE, picture.height)
        image[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)))
    return image


@contextmanager
def taking_parts() -> Iterator[None]:
    """Within, Pillow decodes what there is of a damaged picture; before and after, that is an error."""
    with SWITCHED:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


class PictureReader:
    """Pictures as a clip of one frame a second.

    Args:
        source: One picture, or a folder of pictures, taken in natural order of their names.

    Raises:
        VideoError: There is no picture, or the header of the first one cannot be read.
    """

    def __init__(self, source: Path) -> None:
        self._passed_over: list[str] = []
        if source.is_dir():
            # Names that begin with a dot are hidden: among them is what macOS keeps beside pictures, named like them.
            files = [path for path in source.iterdir() if path.is_file() and not path.name.startswith(".")]
            self.paths = sorted((path for path in files if path.suffix.lower() in PICTURE_SUFFIXES), key=natural_key)
            suffixes = choices(sorted(PICTURE_SUFFIXES))
            if not self.paths:
                raise VideoError(
                    f"{source}: no picture is in this folder; names end in {suffixes}. Of videos, give one file"
                )
            if len(files) > len(self.paths):
                self._passed_over = [
                    f"{source.name}: {len(files) - len(self.paths)} of {len(files)} files are passed over; "
                    f"names of pictures end in {suffixes}"
                ]
        else:
            self.paths = [source]
        self.warnings = list(self._passed_over)
        with open_picture(self.paths[0]) as picture:
            width, height = upright_size(picture)
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
        """Yield (seconds from the start, [H, W, 3] uint8 RGB) for each of the ascending frame numbers.

        Raises:
            VideoError: A picture cannot be read.
        """
        self.warnings = list(self._passed_over)
        loaded, image = -1, None
        for index in indices:
            if image is None or index != loaded:
                loaded, image = index, self._load(self.paths[index])
            yield float(index), image

    def _load(self, path: Path) -> NDArray[np.uint8]:
        with open_picture(path) as picture:
            if holds_several(picture, path):
                self.warnings.append(f"{path.name} holds several pictures: only the first is used")
            try:
                return to_rgb(picture)
            except PILLOW_ERRORS as error:
                reason = reason_of(error).partition(" (")[0]
        with open_picture(path) as picture, taking_parts():
            image = to_rgb(picture)
        if (image.min(axis=(0, 1)) == image.max(axis=(0, 1))).all():  # What is missing comes out in one colour.
            raise VideoError(f"{path.name} cannot be read as a picture ({reason}): is it damaged?")
        self.warnings.append(f"{path.name} is damaged ({reason}): what can be decoded of it is used")
        return image

    def close(self) -> None:
        """Nothing is held open."""
