"""Frames of a video file by their numbers, found by seeking."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from edgevtc.errors import VideoError
from edgevtc.video.ending import breaks_off_in
from edgevtc.video.libav import (
    MAX_VIDEO_PIXELS,
    SEARCHED,
    UNSEEKABLE,
    VideoFile,
    orientation_of,
    timestamp_of,
    to_rgb,
)
from edgevtc.video.sampling import VideoInfo
from edgevtc.video.timeline import ASSUMED_RATE, Tail, another_follows, read_to_end

__all__ = ["VideoReader"]

#: Bounds on what a hostile file can cost: seconds taken to learn a timeline, frames decoded to reach one frame, and
#: pixels decoded in all (5 hours of 1080p at 30 frames a second, without a keyframe).
LEARN_TIMEOUT_S = 300.0
MAX_FRAMES_TO_REACH_ONE = 500_000
MAX_DECODED_PIXELS = 2**40
#: Seconds that decoding on may take before a seek is tried.
SHORTEST_SEEK_S = Fraction(1)
#: So often is a file read again from its start, because seeking found no keyframe, before it is read straight on.
MAX_FUTILE_SEEKS = 4
#: How far the order of display may differ from that of storage (H.264 and H.265 allow 16).
MAX_REORDERED_FRAMES = 16
#: Timestamps that span more than a year are damaged ones.
LONGEST_CLIP_S = 366 * 86400
#: A header's duration may be rounded; what is missing beyond this is told.
SHORTEST_CUT_S = Fraction(1, 10)
#: So many frames are looked at to see whether frames tell their times.
LOOKED_AT = 64


class VideoReader:
    """Frames of a video file by their numbers.

    The timeline is learnt from the header and from the file's last packets; where the header knows no duration, from
    all packets, none of them decoded. Frame number i is the picture on show in the middle of slot i, at
    ``start + (i + 1/2) / fps``. At a constant rate that is the i-th frame, however the container rounds its
    timestamps; at a varying rate the slots are uniform in time. Where a file does not tell when frames are shown,
    or its time goes back (recordings that were joined), frames are counted.

    Args:
        path: A video file.

    Attributes:
        info: What the file holds.

    Raises:
        VideoError: The file is missing, empty, not a video, too large, or no frame of it can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._file = VideoFile(path)
        self._cut: list[str] = []
        self._patched = 0
        try:
            self._file.deadline = time.monotonic() + LEARN_TIMEOUT_S
            self.info = self._learn()
            self._file.deadline = math.inf
        except BaseException:
            self.close()
            raise

    @property
    def warnings(self) -> list[str]:
        """One line for each thing that was wrong and could be worked around, as far as the file has been read."""
        name, left_out, patched = self._file.path.name, self._file.damaged, self._patched
        return [
            *self._cut,
            *([f"{name}: {left_out} damaged packet(s) left out"] if left_out else []),
            *([f"{name}: {patched} of the frames are damaged, and patched by the decoder"] if patched else []),
        ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # --- timeline ---

    def _learn(self) -> VideoInfo:
        file = self._file
        first = next(file.frames(from_keyframe=False), None)
        if first is None:
            too_large = f", or its pictures are above {MAX_VIDEO_PIXELS // 2**20} Mi pixels" if file.oversized else ""
            raise VideoError(
                f"{file.path.name}: no frame of its {file.codec} video can be decoded: it is damaged{too_large}"
            )
        self._orientation = orientation_of(first)
        width, height = first.width, first.height
        if self._orientation.rotation % 180:
            width, height = height, width
        start, rate = timestamp_of(first), file.rate

        # Asked for now: how far frames are reordered is known once some have been decoded.
        seekable = file.tells_show_times
        part = "a fragment" if file.in_a_fragment else breaks_off_in(file.path, file.container)
        # A cut MXF has lost its index: where a seek lands, and at what time, libav can only guess.
        seekable = seekable and not (file.container == "mxf" and part)

        # A seek that searches for a time does not tell whether there is a second place of that time.
        seekable = seekable and not (file.container in SEARCHED and file.time_goes_back())
        tail = self._read_tail(start, file.end, rate) if seekable and start is not None and file.end and rate else None
        whole = None
        if tail is None or self._missing(tail, rate) or tail.jumps:
            tail = whole = self._scan()
        duration = Fraction(0) if start is None or tail.end is None else (tail.end - start) * file.tick
        seekable = seekable and 0 < duration <= LONGEST_CLIP_S and not tail.jumps
        self._timed = seekable and self._frames_tell_times(tail)
        if self._timed:
            self._start, self._rate = start or 0, rate or tail.packets / duration
            num_frames = max(1, round(duration * self._rate))
        else:
            whole = whole or self._scan()
            # What a header says may be rounded; but joined recordings may lie hours apart.
            self._start, self._rate = 0, (rate if whole.jumps else None) or whole.rate or rate or ASSUMED_RATE
            num_frames = max(1, whole.packets)
            duration = num_frames / self._rate
        self._warn_if_cut(part, whole or tail, start or 0, rate)
        if another_follows(file, tail):
            self._cut.append(f"{file.path.name}: of the files that were joined in it only the first is read")
        return VideoInfo(
            width=width,
            height=height,
            duration_s=float(duration),
            fps=float(self._rate),
            num_frames=num_frames,
            codec=file.codec,
            container=file.container,
            rotation=self._orientation.rotation,
            has_audio=file.has_audio,
        )

    def _read_tail(self, start: int, end: int, rate: Fraction) -> Tail | None:
        """Read the last packets by seeking; None where that does not find any."""
        # The last frame to be shown may be stored before others: go back by more than any codec reorders.
        margin = max(Fraction(1), MAX_REORDERED_FRAMES / rate) / self._file.tick
        while end - margin > start:
            if self._file.seek(int(end - margin)):
                tail = read_to_end(self._file)
                if tail.end is not None:
                    return tail
            margin *= 2
        return None

    def _scan(self) -> Tail:
        """Read all packets, decoding none."""
        self._file.rewind()
        return read_to_end(self._file)

    def _frames_tell_times(self, tail: Tail) -> bool:
        """Whether decoded frames carry timestamps.

        Not all packets need one: of the two fields of a picture that come apart, the second has none. But where several
        frames share what bears a timestamp, as in MPEG-PS, only the first of them gets it.
        """
        if not tail.untimed:
            return True
        self._file.rewind()
        frames = islice(self._file.frames(from_keyframe=False), LOOKED_AT)
        return all(timestamp_of(frame) is not None for frame in frames)

    def _missing(self, tail: Tail, rate: Fraction | None) -> Fraction:
        """Seconds that the header promises and the file does not hold; sound may go on longer than the pictures."""
        if self._file.end is None:
            return Fraction(0)
        # A cut MXF may have lost all times with its index.
        counted = tail.packets / (rate or ASSUMED_RATE)
        reached = counted if tail.end is None else tail.end_of_all * self._file.tick
        missing = self._file.end * self._file.tick - reached
        return missing if missing > max(SHORTEST_CUT_S, 4 / (rate or ASSUMED_RATE)) else Fraction(0)

    def _warn_if_cut(self, part: str, tail: Tail, start: int, rate: Fraction | None) -> None:
        """Tell what is missing at the end: by the header, or else by the part that the file breaks off in."""
        file, name = self._file, self._file.path.name
        # Of joined recordings the header tells the length of one, and that of a program stream is a guess. The last
        # slots of an AVI may be empty ones, for "no change", which libav passes over.
        guessed = tail.jumps or (file.container in UNSEEKABLE and not self._timed)
        missing = Fraction(0) if guessed or (file.container == "avi" and not part) else self._missing(tail, rate)
        if missing:
            whole = ((file.end or 0) - start) * file.tick
            self._cut.append(f"{name} ends early: {float(missing):.1f} s of {float(whole):.1f} s are missing")
        elif part:
            self._cut.append(f"{name} ends in the middle of {part}: it is cut short, by how much is not known")

    # --- frames ---

    def frames_at(self, indices: Sequence[int]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield (seconds from the start, [H, W, 3] uint8 RGB, upright) for each of the ascending frame numbers.

        Where the file breaks off, its last frame stands for what is missing, and `warnings` says so.

        Raises:
            VideoError: A frame lies too far from its keyframe, or too much would have to be decoded in all.
        """
        self._futile_seeks = self._patched = self._file.damaged = self._decoded_pixels = 0
        self._restart()
        shown, image = None, None
        for index in indices:
            frame = self._reach(index)
            if image is None or frame is not shown:
                shown, image = frame, to_rgb(frame, self._orientation)
                self._patched += frame.is_corrupt
            when = timestamp_of(frame) if self._timed else None
            yield float(index / self._rate if when is None else (when - self._start) * self._file.tick), image

    def _restart(self) -> None:
        """Begin again at the first frame."""
        self._file.rewind()
        self._frames = self._file.frames(from_keyframe=False)
        self._current: av.VideoFrame | None = None
        self._ahead: av.VideoFrame | None = None
        self._number_ahead = 0
        self._seek_cost = SHORTEST_SEEK_S

    def _reach(self, index: int) -> av.VideoFrame:
        if not self._timed:
            return self._advance(lambda frame: self._number_ahead > index)
        target = int(self._start + (index + Fraction(1, 2)) / self._rate / self._file.tick)
        # Decoding on is always right; a seek is worth it when it saves more than it may repeat.
        worth = (target - self._position()) * self._file.tick > self._seek_cost
        if worth and self._futile_seeks < MAX_FUTILE_SEEKS:
            self._seek(target)
        return self._advance(lambda frame: (timestamp_of(frame) or 0) > target)

    def _position(self) -> int:
        """Where decoding stands, in ticks."""
        frame = self._current or self._ahead
        return self._start if frame is None else timestamp_of(frame) or 0

    def _seek(self, target: int) -> None:
        """Make ready to decode from a keyframe at or before a time in ticks."""
        before, margin = self._position(), 0
        while target - margin > self._start and self._file.seek(target - margin):
            frames = self._file.frames(from_keyframe=True)
            first = self._decode(frames)
            landed = None if first is None else timestamp_of(first)
            if landed is not None and landed <= target:
                # Back where decoding already was: keyframes lie farther apart than the frames that are wanted, and
                # until the next one goes by, it is cheaper to decode on.
                self._seek_cost = (target - landed) * self._file.tick if landed <= before else SHORTEST_SEEK_S
                self._frames, self._current, self._ahead = frames, None, first
                return
            margin = max(int(1 / self._file.tick), 1, 2 * margin)
        self._restart()
        self._seek_cost = (target - self._start) * self._file.tick
        self._futile_seeks += 1

    def _advance(self, is_past: Callable[[av.VideoFrame], bool]) -> av.VideoFrame:
        """Decode on to the last frame that is not past the one wanted."""
        for _ in range(MAX_FRAMES_TO_REACH_ONE):
            self._ahead = self._ahead or self._decode()
            if self._ahead is None or is_past(self._ahead):
                break
            if self._current is not None and self._ahead.key_frame:
                self._seek_cost = SHORTEST_SEEK_S
            self._current, self._ahead = self._ahead, None
            self._number_ahead += 1
        else:
            raise VideoError(f"{self._file.path.name}: no keyframe in {MAX_FRAMES_TO_REACH_ONE} frames: encode it anew")
        frame = self._current or self._ahead
        if frame is None:
            raise VideoError(f"{self._file.path.name}: its frames can no longer be decoded: did the file change?")
        return frame

    def _decode(self, frames: Iterator[av.VideoFrame] | None = None) -> av.VideoFrame | None:
        """The next frame, of where decoding stands or of elsewhere; None at the end."""
        frame = next(frames or self._frames, None)
        if frame is not None:
            self._decoded_pixels += frame.width * frame.height
        if self._decoded_pixels > MAX_DECODED_PIXELS:
            raise VideoError(
                f"{self._file.path.name}: more than {MAX_DECODED_PIXELS // 2**20} Mi pixels would have to be decoded: "
                "encode it anew, smaller or with more keyframes, or cut it"
            )
        return frame
