"""Scenes as a reader of their files sees them: larger or oblong, coded as H.264, sampled and resized.

Only the frames a reader would choose are rendered and coded, so that it costs a tenth of a second a video.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from edgevtc.eval.world_render import Renderer
from edgevtc.eval.world_scene import SIDE, Scene
from edgevtc.eval.world_video import frame_ticks
from edgevtc.video.pictures import resize

#: Longest side in pixels, and width over height, of the files.
SIDES, ASPECTS = (112, 400), (1.0, 1.0, 4 / 3, 3 / 4, 16 / 9, 10 / 7)
#: Constant rate factors: 18 is nearly without loss, 28 is coarse.
FACTORS = (18, 29)


def footage(scene: Scene, renderer: Renderer, rng: np.random.Generator, side: int = SIDE) -> NDArray[np.uint8]:
    """Frames [T, side, side, 3] of a scene read from a file of some kind: size, length and quality are drawn."""
    longest, aspect = np.exp(rng.uniform(*np.log(SIDES))), float(rng.choice(ASPECTS))
    size = int(longest * min(1.0, aspect)) // 2 * 2, int(longest / max(1.0, aspect)) // 2 * 2
    frames = scene.ticks if scene.ticks == 1 or rng.random() < 0.15 else int(rng.integers(2, 40)) * scene.ticks
    chosen = np.linspace(0, frames - 1, scene.ticks, dtype=np.int64)
    shown = renderer.frames(scene, frame_ticks(scene, frames)[chosen], size)
    return np.stack([resize(frame, (side, side), "bicubic") for frame in coded(shown, int(rng.integers(*FACTORS)))])


def coded(frames: NDArray[np.uint8], crf: int) -> list[NDArray[np.uint8]]:
    """Frames [T, H, W, 3] through an H.264 encoder and back."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = "yuv420p", Fraction(1, 8), 1
    encoder.options = {"crf": str(crf), "preset": "veryfast"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    packets = [p for frame in frames for p in encoder.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))]
    packets += encoder.encode(None)
    pictures = [picture for packet in packets for picture in decoder.decode(packet)] + decoder.decode(None)
    return [picture.to_ndarray(format="rgb24") for picture in pictures]
