"""Clips whose every frame carries its number, written for the tests and the benchmarks of the video part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

NUMBER_BITS = 12
MILLISECOND = Fraction(1, 1000)


def numbered_picture(number: int, height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """A picture [height, width, 3] uint8 whose lower half shows `number` as 12 black and white bars."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = 60
    picture[..., 1] = np.linspace(30, 220, height, dtype=np.uint8)[:, None]
    picture[..., 2] = np.linspace(220, 30, width, dtype=np.uint8)
    for bit in range(NUMBER_BITS):
        bar = slice(bit * width // NUMBER_BITS, (bit + 1) * width // NUMBER_BITS)
        picture[height // 2 :, bar] = 235 if number >> bit & 1 else 16
    return picture


def number_shown(picture: NDArray[np.uint8]) -> int:
    """Read the number of a picture, of any size and after any codec."""
    height, width, _ = picture.shape
    rows = slice(height * 5 // 8, height * 7 // 8)
    number = 0
    for bit in range(NUMBER_BITS):
        left, right = bit * width // NUMBER_BITS, (bit + 1) * width // NUMBER_BITS
        inset = (right - left) // 4
        number |= int(picture[rows, left + inset : right - inset].mean() > 128) << bit
    return number


@dataclass(frozen=True)
class Encoding:
    """How a clip is written.

    Attributes:
        encoder: Name of a libav encoder.
        options: Options of the encoder.
        pixel_format: Pixel format, as the encoder takes it.
        gop: Frames from one keyframe to the next.
        format: Container; None takes the file name's.
        muxer: Options of the container.
    """

    encoder: str = "libx264"
    options: dict[str, str] = field(default_factory=dict)
    pixel_format: str = "yuv420p"
    gop: int = 12
    format: str | None = None
    muxer: dict[str, str] = field(default_factory=dict)


def has_encoder(name: str) -> bool:
    """Whether this build of libav can encode with `name`."""
    try:
        return bool(av.Codec(name, "w"))
    except av.codec.codec.UnknownCodecError:
        return False


def write_clip(
    path: Path,
    num_frames: int,
    encoding: Encoding | None = None,
    *,
    rate: int | Fraction = 30,
    times_ms: Sequence[int] | None = None,
    size: tuple[int, int] = (96, 128),
    pictures: Iterator[NDArray[np.uint8]] | None = None,
) -> Path:
    """Write a clip of numbered pictures.

    Args:
        path: File to write.
        num_frames: Frames.
        encoding: Codec and container.
        rate: Frames a second.
        times_ms: Timestamps of the frames in milliseconds, for a varying rate; evenly spaced where not given.
        size: (height, width) of the pictures.
        pictures: What to show instead of numbers.
    """
    encoding = encoding or Encoding()
    height, width = size
    with av.open(str(path), "w", format=encoding.format, options=encoding.muxer) as container:
        stream: Any = container.add_stream(encoding.encoder, rate=rate, options=encoding.options)
        stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixel_format
        stream.codec_context.gop_size = encoding.gop
        if times_ms is not None:
            stream.codec_context.time_base = MILLISECOND
        for number in range(num_frames):
            picture = next(pictures) if pictures else numbered_picture(number, height, width)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def repeat_clip(source: Path, target: Path, times: int, muxer: dict[str, str] | None = None) -> Path:
    """Copy a clip's packets `times` over, one copy after the other: a long video without encoding one."""
    with av.open(str(target), "w", options=muxer or {}) as container:
        out: Any = None
        for repeat in range(times):
            with av.open(str(source)) as clip:
                stream = clip.streams.video[0]
                out = out or container.add_stream_from_template(stream, opaque=True)
                for packet in clip.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts += repeat * (stream.duration or 0)
                    packet.dts += repeat * (stream.duration or 0)
                    packet.stream = out
                    container.mux(packet)
    return target
