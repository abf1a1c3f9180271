"""Which frames of a clip are looked at: arithmetic only, no file is touched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevtc.errors import ConfigError, VideoError

__all__ = ["VideoInfo", "sample_indices", "sample_timestamps"]


@dataclass(frozen=True)
class VideoInfo:
    """What a source of frames is, as it will be delivered.

    Attributes:
        width: Pixels a row, upright (after rotation).
        height: Rows, upright.
        duration_s: Seconds from the first frame to the end of the last.
        fps: Mean frames a second; 1 for a folder of images.
        num_frames: Frames of the clip. A video of varying rate is seen as `num_frames` equal slots of 1/fps.
        codec: Name of the codec, such as ``"h264"``; ``"image"`` for pictures.
        container: Name of the container, such as ``"matroska,webm"``; ``"folder"`` or the picture's format.
        rotation: Degrees, clockwise, that the stored picture is turned by to stand upright: 0, 90, 180 or 270.
        has_audio: Whether there is sound, which nothing here listens to.
    """

    width: int
    height: int
    duration_s: float
    fps: float
    num_frames: int
    codec: str
    container: str
    rotation: int = 0
    has_audio: bool = False


def sample_indices(
    info: VideoInfo,
    num_frames: int,
    *,
    fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
) -> NDArray[np.int64]:
    """Choose frames as LLaVA does: evenly, ``np.linspace(first, last, num_frames, dtype=int)``.

    With `fps`, every ``round(info.fps / fps)``-th frame is a candidate; when the candidates are more than
    `num_frames`, LLaVA's rule is the even choice over the whole clip, as without `fps`. A clip that has fewer frames
    than asked for repeats some, by the same formula.

    Args:
        info: The clip.
        num_frames: T, the number of frames chosen.
        fps: Frames a second to look at, at most.
        start_s: Seconds from the first frame; what is before is not looked at.
        end_s: Seconds from the first frame; what is at or after it is not looked at.

    Returns:
        [T] int64 frame numbers, ascending, repeats allowed.

    Raises:
        ConfigError: An argument is out of range.
        VideoError: Nothing of the clip lies between `start_s` and `end_s`.

    Example:
        >>> info = VideoInfo(640, 360, duration_s=10.0, fps=10.0, num_frames=100, codec="h264", container="mp4")
        >>> sample_indices(info, 4).tolist()
        [0, 33, 66, 99]
        >>> sample_indices(info, 5, fps=0.5).tolist()
        [0, 20, 40, 60, 80]
        >>> sample_indices(info, 3, start_s=2.0, end_s=4.0).tolist()
        [20, 29, 39]
    """
    if num_frames < 1:
        raise ConfigError(f"num_frames is {num_frames}: it must be 1 or more")
    if fps is not None and not (fps > 0 and np.isfinite(fps)):
        raise ConfigError(f"fps is {fps}: it must be a number above 0")
    start = 0.0 if start_s is None else float(start_s)
    end = info.duration_s if end_s is None else min(float(end_s), info.duration_s)
    if not (start >= 0 and np.isfinite(start)):
        raise ConfigError(f"the start is {start_s} s: it must be 0 or more")
    if end_s is not None and not end_s > start:
        raise ConfigError(f"the end is {end_s} s: it must be above the start, {start:g} s")
    # A thousandth of a frame of slack, so that 0.3 s at 10 frames a second is frame 3.
    first = int(np.ceil(start * info.fps - 1e-3))
    stop = info.num_frames if end_s is None else min(info.num_frames, int(np.ceil(end * info.fps - 1e-3)))
    if start >= info.duration_s:
        raise VideoError(f"the start is {start:g} s, past the clip's end: it lasts {info.duration_s:.3f} s")
    # An interval in which no frame begins still shows one: that on show at its end.
    first = max(0, min(first, stop - 1))
    stop = max(stop, first + 1)
    step = 1 if fps is None else max(1, round(info.fps / fps))
    candidates = -(-(stop - first) // step)
    if candidates > num_frames:
        return np.linspace(first, stop - 1, num_frames, dtype=np.int64)
    return first + step * np.linspace(0, candidates - 1, num_frames, dtype=np.int64)


def sample_timestamps(
    info: VideoInfo,
    num_frames: int,
    *,
    fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
) -> NDArray[np.float64]:
    """Say when the frames that `sample_indices` chooses begin.

    Returns:
        [T] float64 seconds from the first frame, ascending.

    Raises:
        ConfigError: An argument is out of range.
        VideoError: Nothing of the clip lies between `start_s` and `end_s`.
    """
    return sample_indices(info, num_frames, fps=fps, start_s=start_s, end_s=end_s) / info.fps
