"""The public face of the video part: T frames of any source, resized, one at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgevtc.errors import VideoError
from edgevtc.video.pictures import PictureReader, check_resize, is_picture, resize
from edgevtc.video.reader import VideoReader
from edgevtc.video.sampling import VideoInfo, sample_indices

__all__ = ["Frame", "FrameSampler", "iter_frames", "probe"]

#: How an address begins that is no file's, as in http://host/clip.mp4.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Frame:
    """One sampled frame.

    Attributes:
        index: Which of the sample's frames this is, from 0 to T−1.
        time_s: When it is shown, in seconds from the clip's first frame.
        image: [H, W, 3] uint8 RGB, upright. Repeated frames share one array: copy before writing into it.
    """

    index: int
    time_s: float
    image: NDArray[np.uint8]


def open_source(source: str | os.PathLike[str]) -> VideoReader | PictureReader:
    """Choose the reader for a source by what it is: a folder, a picture by its first bytes, else a video."""
    path = Path(source)
    if not os.fspath(source):  # To pathlib, that is the current folder.
        raise VideoError("the path is empty: give a video file, a picture, or a folder of pictures")
    try:
        if path.is_dir() or (path.is_file() and is_picture(path)):
            return PictureReader(path)
        if URL.match(os.fspath(source)) and not path.exists():
            raise VideoError(f"{os.fspath(source)} is a URL, and only files are read: download it first")
        return VideoReader(path)
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {(error.strerror or type(error).__name__).lower()}") from None


def probe(source: str | os.PathLike[str]) -> VideoInfo:
    """Say what a source of frames holds.

    Args:
        source: A video file, a picture, or a folder of pictures.

    Raises:
        VideoError: The source is missing, unreadable, or holds no picture.

    Example:
        >>> info = probe("clip.mp4")  # doctest: +SKIP
        >>> info.num_frames, info.fps, info.codec  # doctest: +SKIP
        (300, 30.0, 'h264')
    """
    reader = open_source(source)
    reader.close()
    return reader.info


class FrameSampler:
    """T frames of a clip, chosen evenly and resized: a context manager that is iterated once.

    Only one frame is held at a time, and a video is read by seeking, so that neither time nor memory depends on how
    long the clip is. Exactly `num_frames` frames come out, for every source that can be read at all.

    Args:
        source: A video file, a picture, or a folder of pictures (in natural order, as one frame a second).
        num_frames: T.
        size: (height, width) of the frames; None leaves them as they are.
        resample: Filter of the resize, by Pillow's name: nearest, box, bilinear, hamming, bicubic or lanczos.
        fps: Frames a second to look at, at most; see `sample_indices`.
        start_s: Seconds from the first frame where looking begins.
        end_s: Seconds from the first frame where it ends.

    Attributes:
        info: What the source holds.
        indices: [T] int64 numbers of the chosen frames.
        warnings: One line for each thing that was wrong with the source and could be worked around; complete when
            the last frame has been taken.

    Raises:
        ConfigError: An argument is out of range.
        VideoError: The source is missing, unreadable, or holds no picture.

    Example:
        >>> with FrameSampler("clip.mp4", 8, size=(384, 384)) as sampler:  # doctest: +SKIP
        ...     video = np.stack([frame.image for frame in sampler])
        >>> video.shape, sampler.warnings  # doctest: +SKIP
        ((8, 384, 384, 3), [])
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        num_frames: int,
        size: tuple[int, int] | None = None,
        *,
        resample: str = "bicubic",
        fps: float | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> None:
        check_resize(size, resample)
        self.size = size
        self.resample = resample
        self._reader = open_source(source)
        try:
            self.info = self._reader.info
            self.indices = sample_indices(self.info, num_frames, fps=fps, start_s=start_s, end_s=end_s)
        except BaseException:
            self.close()
            raise

    @property
    def warnings(self) -> list[str]:
        """One line for each thing that was wrong with the source and could be worked around."""
        return self._reader.warnings

    def __enter__(self) -> FrameSampler:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the source."""
        self._reader.close()

    def __iter__(self) -> Iterator[Frame]:
        decoded, image = None, None
        for index, (time_s, picture) in enumerate(self._reader.frames_at(self.indices.tolist())):
            if image is None or picture is not decoded:
                decoded, image = picture, resize(picture, self.size, self.resample)
            yield Frame(index, time_s, image)


def iter_frames(
    source: str | os.PathLike[str],
    num_frames: int,
    size: tuple[int, int] | None = None,
    *,
    resample: str = "bicubic",
    fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Iterator[Frame]:
    """Yield T frames of a source and close it; the arguments and errors are `FrameSampler`'s.

    Example:
        >>> for frame in iter_frames("clip.mp4", 8, size=(384, 384)):  # doctest: +SKIP
        ...     print(f"{frame.time_s:.2f} s", frame.image.shape)
    """
    with FrameSampler(source, num_frames, size, resample=resample, fps=fps, start_s=start_s, end_s=end_s) as sampler:
        yield from sampler
