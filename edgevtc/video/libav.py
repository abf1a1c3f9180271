"""One video stream of one file, by PyAV: open, seek, packets, frames. libav's errors end here."""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from edgevtc.errors import VideoError
from edgevtc.video.bounded import START_CODE, BoundedFile
from edgevtc.video.boxes import check_index
from edgevtc.video.pictures import PICTURE_SUFFIXES, check_pixels

__all__ = [
    "MAX_VIDEO_PIXELS",
    "MP4_DEMUXERS",
    "SEARCHED",
    "SHORTEST_JUMP_S",
    "UNSEEKABLE",
    "Orientation",
    "VideoFile",
    "orientation_of",
    "timestamp_of",
    "to_rgb",
]

#: Demuxers that read one file and nothing else. Playlists (hls, concat, dash, sdp) would open whatever they name.
MP4_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2"
DEMUXERS = (
    f"{MP4_DEMUXERS},matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,av1,obu,ivf,m4v,mjpeg,"
    "flv,live_flv,asf,ogg,gif,apng,nut,mxf,wtv,rm,dv,yuv4mpegpipe,h263,vc1"
)
#: 8192 x 4608. A decoder holds up to 16 pictures that others refer to, and some more.
MAX_VIDEO_PIXELS = 36 * 2**20
#: Above this, frame threading would hold too many decoded pictures at once.
LARGE_PICTURE = 4096 * 2304
MAX_THREADS = 8
#: Containers in which timestamps are made up after a seek: few packets of an MPEG program stream carry one.
UNSEEKABLE = frozenset({"mpeg"})
#: Containers in which a seek looks for a time by halves, and so passes over places where time begins anew.
SEARCHED = frozenset({"mpegts", "ogg"})
#: Time that goes back by more is a seam between recordings; reordered pictures and rounding go back by less.
SHORTEST_JUMP_S = Fraction(1, 4)
#: Containers that store one time a packet, that of decoding; libav makes up when its picture is shown.
WITHOUT_SHOW_TIMES = frozenset({"avi", "asf", "mxf"})
#: Containers whose duration reaches from zero to the end, wherever the first frame is.
LASTING_FROM_ZERO = frozenset({"matroska,webm", "flv"})
#: Codecs for which libav makes it up right: their B-frames wait for one other frame, and packets tell which they are.
ORDERED_BY_LIBAV = frozenset({"mpeg1video", "mpeg2video", "mpeg4"})
#: Finding the next packet takes longer, or farther, only in a damaged file or on a network mount that hangs. (libav's
#: own limit of time ends a read with a packet of what there was, and begins anew with the next.)
READ_TIMEOUT_S = 15.0
MAX_BYTES_A_PACKET = 2**27
#: Finding it, or opening, passes by some thousand start codes. (Those in an MP4 are numbers in its index.)
MAX_START_CODES_A_PACKET = 2**15
#: Codecs whose packets libav takes apart into units, and more units than the slices of an 8K picture come to.
MADE_OF_UNITS = frozenset({"h264", "hevc"})
MAX_UNITS = 4096
#: Decoders whose frame threads wait for one another for ever where a damaged file lacks a frame that others refer to.
WAITING_FOR_EVER = frozenset({"hevc"})
#: Damaged packets in a row after which the rest of the file is given up.
MAX_DAMAGED_IN_A_ROW = 1000
ATTACHED_PICTURE = 0x0400
#: Tags in another encoding than UTF-8 are no reason to refuse a file; PyAV 19 reads them, and has no such argument.
TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
#: From PyAV 19 on, a decoder that could not be opened raises a ValueError when it is used again.
DECODING_ERRORS = (av.FFmpegError, ValueError)
#: Decoders that are not named as their codec is.
CODEC_OF_DECODER = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}


class VideoFile:
    """The main video stream of a file.

    Args:
        path: A file.

    Attributes:
        tick: Seconds a unit of timestamps.
        damaged: Packets that could not be read or decoded so far.
        oversized: Whether one of them may have been refused for the size of its picture.
        deadline: When reading is given up, by the monotonic clock; infinite until it is set.

    Raises:
        VideoError: The file is missing, empty, not a video, or holds no video stream that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.oversized = False
        self.deadline = math.inf
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise VideoError(f"{path} {what}: give a video file, a picture, or a folder of pictures")
        if path.stat().st_size == 0:
            raise VideoError(f"{path.name} is empty: was it copied or recorded to its end?")
        self._boxes = check_index(path)
        self._open()

    def _open(self, **options: str) -> None:
        # libav reads through a file of ours, which bounds what it reads and sets aside. It goes by the suffix where
        # two formats begin alike, and gets no more of the name: "concat:a" would be a protocol.
        self._bytes = BoundedFile(self.path, name="video" + self.path.suffix, size=self._boxes.usable)
        self._allow_packet()
        try:
            with self._bytes.deferring():
                self._container = self._open_container(options)
            # libav reads on to estimate how long a stream is; that its packets begin is all that is asked of it.
            self._bytes.overrun = False
        except BaseException:
            self._bytes.close()
            raise
        try:
            self.stream = self._choose_stream()
            self.tick = Fraction(self.stream.time_base or 1)
        except BaseException:
            self.close()
            raise

    def _allow_packet(self) -> None:
        """Allow libav to read what it takes to find the next packet, or to open the file."""
        start_codes = math.inf if self._boxes.is_mp4 else MAX_START_CODES_A_PACKET
        self._bytes.allow(MAX_BYTES_A_PACKET, seconds=READ_TIMEOUT_S, start_codes=start_codes)

    def _open_container(self, options: dict[str, str]) -> InputContainer:
        demuxers = MP4_DEMUXERS if self._boxes.is_mp4 else DEMUXERS
        options = {"format_whitelist": demuxers, "protocol_whitelist": "file", **options}
        try:
            # Not `options`: before PyAV 17 those overrun memory in containers without a header, such as MPEG-PS.
            return av.open(self._bytes, container_options=options, **TAGS)
        except (av.FFmpegError, ValueError) as error:
            reason = "there is no end to its header" if self._bytes.overrun else reason_of(error)
            kind = "a picture or a video" if self.path.suffix.lower() in PICTURE_SUFFIXES else "a video"
            raise VideoError(
                f"{self.path.name} cannot be read as {kind} ({reason}): is it a whole video file?"
            ) from None

    def _choose_stream(self) -> av.VideoStream:
        stream: Any = self._container.streams.best("video")
        # Cover art is a video stream to libav. (PyAV 14.0 has no dispositions, and takes it for one frame of video.)
        disposition = getattr(stream, "disposition", None)
        if stream is None or (disposition is not None and disposition.value & ATTACHED_PICTURE):
            what = "only sound" if self.has_audio else "no video"
            raise VideoError(f"{self.path.name} holds {what}: give a file with a video stream, or a picture")
        context = stream.codec_context
        if context is None:
            raise VideoError(
                f"{self.path.name}: libav, as built into PyAV, has no decoder for its video: convert it to H.264"
            )
        check_pixels(self.path.name, context.width or 1, context.height or 1, MAX_VIDEO_PIXELS)
        # Asked for now: where a decoder cannot be opened, PyAV 19 dies of this question.
        self._decoder = str(context.name)
        context.options = {"max_pixels": str(MAX_VIDEO_PIXELS)}
        if context.width * context.height <= LARGE_PICTURE:
            context.thread_type = "SLICE" if self._decoder in WAITING_FOR_EVER else "AUTO"
            context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
        return stream

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._bytes.close()

    # --- what the header says ---

    @property
    def codec(self) -> str:
        """Name of the codec."""
        return CODEC_OF_DECODER.get(self._decoder, self._decoder)

    @property
    def container(self) -> str:
        """Name of the container, by libav's demuxer."""
        return str(self._container.format.name)

    @property
    def has_audio(self) -> bool:
        """Whether there is a sound stream."""
        return bool(self._container.streams.audio)

    @property
    def in_a_fragment(self) -> bool:
        """Whether the file, a fragmented MP4, ends in the middle of a fragment."""
        return self._boxes.cut

    @property
    def end(self) -> int | None:
        """Where the video is said to end, in ticks; None where nothing is said."""
        if self.container == "avi" and self.stream.frames and self.rate:
            # Of a cut AVI, libav shortens the duration to what is left.
            return int(self.stream.frames / self.rate / self.tick)
        from_zero = self.container in LASTING_FROM_ZERO
        if self.stream.duration:
            return (0 if from_zero else self.stream.start_time or 0) + self.stream.duration
        if self._container.duration:
            start = 0 if from_zero else self._container.start_time or 0
            return int((start + self._container.duration) / (av.time_base * self.tick))
        return None

    @property
    def rate(self) -> Fraction | None:
        """Mean frames a second, as said; None where nothing is said."""
        rate = self.stream.average_rate
        if not self._container.duration:
            # To a stream without a container libav ascribes a mean rate of 25; the codec's own is in the guess. (Of a
            # varying rate, the guess is what all its times are multiples of.)
            rate = self.stream.guessed_rate or rate
        return Fraction(rate) if rate and rate > 0 else None

    @property
    def tells_show_times(self) -> bool:
        """Whether timestamps say when frames are shown, and not just when their packets are decoded."""
        reordered = self.stream.codec_context.has_b_frames and self._decoder not in ORDERED_BY_LIBAV
        return not (self.container in WITHOUT_SHOW_TIMES and reordered)

    # --- what the stream holds ---

    def rewind(self) -> None:
        """Go to the very beginning, which a seek does not reach in every container."""
        self.close()
        self._open()

    def seek(self, ticks: int) -> bool:
        """Go to the last keyframe at or before a timestamp, as far as the container knows; False if that cannot be."""
        if self.container in UNSEEKABLE:
            return False
        self._bytes.allow(seconds=READ_TIMEOUT_S)
        try:
            with self._bytes.deferring():
                self._container.seek(ticks, stream=self.stream)
        except (av.FFmpegError, OverflowError):
            return False
        return not self._bytes.overrun

    def time_goes_back(self) -> bool:
        """Whether time begins anew somewhere, as where recordings were joined. Reads the whole file, parses no packet.

        Raises:
            VideoError: The deadline has passed.
        """
        self.close()
        self._open(fflags="noparse+nofillin")
        damaged, goes_back = self.damaged, False
        latest = -(2**63)
        with self._bytes.deferring():
            for packet in self.packets():
                when = packet.dts if packet.dts is not None else packet.pts
                if when is not None:
                    if (when - latest) * self.tick < -SHORTEST_JUMP_S:
                        goes_back = True
                        break
                    latest = when
        self.damaged = damaged
        self.rewind()
        return goes_back

    def packets(self, every_stream: bool = False) -> Iterator[av.Packet]:
        """Whole packets from here on. Damaged ones are left out and counted; where reading fails is the end."""
        while True:
            packets = self._container.demux() if every_stream else self._container.demux(self.stream)
            try:
                while (packet := self._next_packet(packets)) is not None:
                    # To a decoder an empty packet is the end of the stream; some containers store them for "no change".
                    if packet.size and not packet.is_corrupt:
                        yield packet
                    elif packet.is_corrupt and packet.stream_index == self.stream.index:
                        self.damaged += 1
                return
            except av.FFmpegError:
                self.damaged += 1
                return
            except IndexError:
                # PyAV trips over the first packet of a stream that was not there when the file was opened.
                self.damaged += 1

    def _next_packet(self, packets: Iterator[av.Packet]) -> av.Packet | None:
        """The next packet; None at the end, which is also where none is found within the bounds of a read."""
        if time.monotonic() > self.deadline:
            raise VideoError(
                f"{self.path.name} takes too long to look through: put it into a container with an index, such as MP4"
            )
        self._allow_packet()
        with self._bytes.deferring():
            packet = next(packets, None)
        if packet is None and self._bytes.overrun:
            self.damaged += 1
        return packet

    def frames(self, from_keyframe: bool) -> Iterator[av.VideoFrame]:
        """Decoded frames from here on, in the order of display. Damaged packets are left out and counted.

        Args:
            from_keyframe: Begin at the next keyframe, and leave out frames that are shown before it: they refer to
                pictures that have not been decoded.
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
                decoded = self._decode(packet)
                damaged_in_a_row = 0
            except DECODING_ERRORS as error:
                # Of a picture that is too large, libav calls a number invalid, or leaves the size at zero.
                invalid = getattr(error, "errno", None) == errno.EINVAL
                self.oversized = self.oversized or invalid or not self.stream.codec_context.width
                self.damaged += 1
                damaged_in_a_row += 1
                if damaged_in_a_row > MAX_DAMAGED_IN_A_ROW:
                    break
                continue
            yield from (frame for frame in decoded if is_due(frame, earliest))
        try:
            yield from (frame for frame in self.stream.codec_context.decode(None) if is_due(frame, earliest))
        except DECODING_ERRORS:
            self.damaged += 1

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        """Decode a packet, which in a damaged or a hostile file may have units without number."""
        if self._decoder in MADE_OF_UNITS and bytes(packet).count(START_CODE) > MAX_UNITS:
            raise ValueError
        return self.stream.codec_context.decode(packet)


def is_due(frame: av.VideoFrame, earliest: int | None) -> bool:
    """Whether a frame is shown at or after a timestamp; yes where either has none."""
    when = timestamp_of(frame)
    return earliest is None or when is None or when >= earliest


def timestamp_of(item: av.Packet | av.VideoFrame) -> int | None:
    """When a frame is shown, in ticks; in containers that store only the time of decoding, that."""
    return item.pts if item.pts is not None else item.dts


def reason_of(error: Exception) -> str:
    """libav's own words for an error, without its number and file name."""
    if getattr(error, "errno", None) == errno.EINVAL:
        return "not a container of video"
    return str(getattr(error, "strerror", None) or type(error).__name__).rstrip(".").lower()


class Orientation(NamedTuple):
    """How a stored picture is to be shown: mirrored left to right or not, and then turned."""

    mirrored: bool
    rotation: int  # degrees clockwise: 0, 90, 180 or 270


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Read a frame's display matrix, to the nearest quarter turn."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation(False, 0)
    # Rows (a, b, u), (c, d, v), (x, y, w) in fixed point: (1, 0) is shown at (a, b) and (0, 1) at (c, d), y downwards.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(float)
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return Orientation(mirrored, round(np.degrees(np.arctan2(b, a)) / 90) % 4 * 90)


def to_rgb(frame: av.VideoFrame, orientation: Orientation) -> NDArray[np.uint8]:
    """A frame as [H, W, 3] uint8 RGB, upright.

    Raises:
        VideoError: libav cannot convert the frame's pixel format.
    """
    try:
        image = frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"pixels in format {frame.format.name} cannot be converted ({reason_of(error)})") from None
    return np.rot90(image[:, ::-1] if orientation.mirrored else image, -(orientation.rotation // 90))
