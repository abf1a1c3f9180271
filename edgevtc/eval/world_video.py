"""Scenes as H.264 files of any size, frame rate and length."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from edgevtc.errors import ConfigError
from edgevtc.eval.world_render import Renderer
from edgevtc.eval.world_scene import Scene

__all__ = ["frame_ticks", "write_mp4"]


def frame_ticks(scene: Scene, frames: int) -> np.ndarray:
    """Ticks [frames] of a video's frames: the scene's whole time, evenly.

    Raises:
        ConfigError: So few frames that sampling them uniformly could miss what a model frame shows.
    """
    if frames != scene.ticks and frames < 2 * scene.ticks:
        raise ConfigError(
            f"{frames} frames cannot show a scene of {scene.ticks} ticks faithfully: "
            f"use {scene.ticks}, or at least {2 * scene.ticks}, by a higher frame rate or more seconds"
        )
    return np.linspace(0, scene.ticks - 1, frames).astype(np.float32)


def write_mp4(
    path: str | Path,
    scene: Scene,
    renderer: Renderer,
    *,
    size: tuple[int, int] = (384, 384),
    fps: int = 8,
    seconds: float = 8.0,
    crf: int = 23,
) -> Path:
    """Render a scene to an H.264 file of `round(fps * seconds)` frames of `size` (width, height; even numbers).

    The scene's time is stretched over the whole file. The file appears whole or not at all.

    Raises:
        ConfigError: Odd size, or too few frames (see :func:`frame_ticks`).
    """
    if any(side < 32 or side % 2 for side in size):
        raise ConfigError(f"size {size[0]}x{size[1]} cannot be coded as yuv420p: use even numbers from 32 on")
    ticks = frame_ticks(scene, round(fps * seconds))
    path = Path(path)
    part = path.with_name(f".{path.stem}.part.mp4")
    try:
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": str(crf), "preset": "veryfast"}
            for start in range(0, len(ticks), 64):  # bounded memory for long files
                for frame in renderer.frames(scene, ticks[start : start + 64], size, first=start):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
