"""One video stream of one file, by PyAV: open, seek, packets, frames. libav's errors end here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from edgevtc.errors import VideoError
from edgevtc.video.pictures import MAX_PIXELS, check_pixels

__all__ = ["VideoFile", "rotation_of", "timestamp_of", "to_rgb"]

#: Demuxers that read one file and nothing else. Playlists (hls, concat, dash, sdp) would open whatever they name.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,av1,obu,ivf,m4v,mjpeg,"
    "flv,live_flv,asf,ogg,gif,apng,nut,mxf,wtv,rm,dv,yuv4mpegpipe,h263,vc1"
)
#: Above this, frame threading would hold too many decoded pictures at once.
LARGE_PICTURE = 4096 * 2304
MAX_THREADS = 8
#: A stalled read (a network mount) fails after so many seconds.
READ_TIMEOUT_S = 30.0
#: Damaged packets in a row after which the rest of the file is given up.
MAX_DAMAGED_PACKETS = 1000
ATTACHED_PICTURE = 0x0400
#: Decoders that are not named as their codec is.
CODEC_OF_DECODER = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}


class VideoFile:
    """The first video stream of a file.

    Args:
        path: A file.

    Attributes:
        tick: Seconds a unit of timestamps.
        damaged: Packets that could not be decoded so far.

    Raises:
        VideoError: The file is missing, empty, not a video, or holds no video stream that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise VideoError(f"{path} {what}: give a video file, a picture, or a folder of pictures")
        if path.stat().st_size == 0:
            raise VideoError(f"{path.name} is empty")
        self._container = self._open_container()
        try:
            self.stream = self._choose_stream()
        except BaseException:
            self.close()
            raise
        self.tick = Fraction(self.stream.time_base or 1)

    def _open_container(self) -> av.container.InputContainer:
        options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
        try:
            # The absolute path, so that a file named "concat:a" is a name and no protocol.
            return av.open(
                os.path.abspath(self.path),
                options=options,
                metadata_errors="replace",
                timeout=(READ_TIMEOUT_S, READ_TIMEOUT_S),
            )
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(f"{self.path.name} cannot be read as a video ({reason_of(error)})") from None

    def _choose_stream(self) -> av.VideoStream:
        # Cover art is a video stream to libav. (PyAV 14.0 has no dispositions.)
        videos = self._container.streams.video
        streams = [s for s in videos if not int(getattr(s, "disposition", 0)) & ATTACHED_PICTURE]
        if not streams:
            what = "only sound" if self._container.streams.audio else "no video"
            raise VideoError(f"{self.path.name} holds {what}: a video stream is needed")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise VideoError(f"{self.path.name}: libav, as built into PyAV, has no decoder for its video")
        check_pixels(self.path.name, context.width or 1, context.height or 1)
        context.options = {"max_pixels": str(MAX_PIXELS)}
        if context.width * context.height <= LARGE_PICTURE:
            context.thread_type = "AUTO"
            context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
        return stream

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return CODEC_OF_DECODER.get(self.stream.codec_context.name, self.stream.codec_context.name)

    @property
    def container(self) -> str:
        """Name of the container, by libav's demuxer."""
        return str(self._container.format.name)

    @property
    def has_audio(self) -> bool:
        """Whether there is a sound stream."""
        return bool(self._container.streams.audio)

    @property
    def header_end(self) -> int | None:
        """Where the header says that the video ends, in ticks; None where it does not say."""
        if self.stream.duration:
            return (self.stream.start_time or 0) + self.stream.duration
        if self._container.duration:
            return int(((self._container.start_time or 0) + self._container.duration) / (av.time_base * self.tick))
        return None

    @property
    def header_rate(self) -> Fraction | None:
        """Frames a second by the header."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return Fraction(rate) if rate else None

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def rewind(self) -> None:
        """Go to the very beginning, which no seek reaches in every container."""
        damaged = self.damaged
        self.close()
        self.__init__(self.path)  # type: ignore[misc]
        self.damaged = damaged

    def seek(self, ticks: int) -> bool:
        """Go to the last keyframe at or before a timestamp, as far as the container knows; False if it cannot."""
        try:
            self._container.seek(ticks, stream=self.stream)
        except (av.FFmpegError, OverflowError):
            return False
        return True

    def packets(self, every_stream: bool = False) -> Iterator[av.Packet]:
        """Packets from here on; a read error is the end."""
        try:
            yield from self._container.demux() if every_stream else self._container.demux(self.stream)
        except av.FFmpegError:
            self.damaged += 1

    def frames(self, from_keyframe: bool) -> Iterator[av.VideoFrame]:
        """Decoded frames from here on, in the order of display; damaged packets are left out and counted.

        Args:
            from_keyframe: Begin at the next keyframe and leave out frames that are shown before it: these need
                pictures that were not decoded.
        """
        earliest: int | None = None
        started = not from_keyframe
        damaged_in_a_row = 0
        for packet in self.packets():
            if not started:
                if not packet.is_keyframe:
                    continue
                started, earliest = True, timestamp_of(packet)
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                self.damaged += 1
                damaged_in_a_row += 1
                if damaged_in_a_row > MAX_DAMAGED_PACKETS:
                    return
                continue
            for frame in decoded:
                damaged_in_a_row = 0
                when = timestamp_of(frame)
                if earliest is None or when is None or when >= earliest:
                    yield frame


def timestamp_of(item: av.Packet | av.VideoFrame) -> int | None:
    """When a frame is shown, in ticks; where the container stores only decoding times, that."""
    return int(item.pts) if item.pts is not None else None if item.dts is None else int(item.dts)


def reason_of(error: Exception) -> str:
    """libav's own words for an error, without its number and file name."""
    return str(getattr(error, "strerror", None) or type(error).__name__).rstrip(".").lower()


def rotation_of(frame: av.VideoFrame) -> int:
    """Degrees clockwise that a frame is to be turned by, from its display matrix, to the nearest quarter turn."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0
    # Rows (a, b, u), (c, d, v), (x, y, w) as 16.16 fixed point: (1, 0) is shown at (a, b), with y pointing down.
    a, b = np.frombuffer(bytes(matrix), np.int32)[:2].astype(float)
    return round(np.degrees(np.arctan2(b, a)) / 90) % 4 * 90


def to_rgb(frame: av.VideoFrame, rotation: int) -> NDArray[np.uint8]:
    """A frame as [H, W, 3] uint8 RGB, upright."""
    image = frame.to_ndarray(format="rgb24")
    return np.rot90(image, -rotation // 90)
