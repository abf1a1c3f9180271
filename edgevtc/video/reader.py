"""Frames of a video file by their numbers, found by seeking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from edgevtc.errors import VideoError
from edgevtc.video.libav import VideoFile, rotation_of, timestamp_of, to_rgb
from edgevtc.video.pictures import check_pixels
from edgevtc.video.sampling import VideoInfo

__all__ = ["VideoReader"]

#: Bounds on what a hostile file can cost: packets read to learn a timeline, frames decoded to reach one frame.
MAX_SCANNED_PACKETS = 5_000_000
MAX_FRAMES_TO_REACH_ONE = 500_000
#: Seconds that decoding on may take before a seek is tried.
SHORTEST_SEEK_S = Fraction(1)
#: How far the order of display may differ from that of storage (H.264 and H.265 allow 16).
MAX_REORDERED_FRAMES = 16
#: What a file is played at when it tells no rate at all.
ASSUMED_RATE = Fraction(25)


class VideoReader:
    """Frames of a video file by their numbers.

    The timeline is learnt from the header and from the packets after the last keyframe; where the header knows no
    duration, from all packets, none of them decoded. Frame number i is the picture on show in the middle of slot i,
    at ``start + (i + 1/2) / fps``. At a constant rate that is the i-th frame, however the container rounds its
    timestamps; at a varying rate the slots are uniform in time. Where a file has no timestamps, frames are counted.

    Args:
        path: A video file.

    Attributes:
        info: What the file holds.
        warnings: One line for each thing that was wrong and could be worked around.

    Raises:
        VideoError: The file is missing, empty, not a video, too large, or no frame of it can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.warnings: list[str] = []
        self._file = VideoFile(path)
        try:
            self.info = self._learn()
            self._restart()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # --- timeline ---

    def _learn(self) -> VideoInfo:
        file = self._file
        first = next(file.frames(from_keyframe=False), None)
        if first is None:
            raise VideoError(f"{file.path.name}: no frame of its {file.codec} video can be decoded; is it damaged?")
        self._rotation = rotation_of(first)
        width, height = (first.height, first.width) if self._rotation % 180 else (first.width, first.height)
        check_pixels(file.path.name, width, height)

        start = timestamp_of(first)
        header_end, rate = file.header_end, file.header_rate
        end = None
        if start is not None and header_end is not None and rate is not None:
            # The last packet to be shown may be stored before others: go back by more than any codec reorders.
            end = self._find_end(start, header_end, margin=max(Fraction(1), MAX_REORDERED_FRAMES / rate))
        if start is None or end is None or rate is None:
            num_frames, end = self._scan()
            self._timed = start is not None and end is not None and end > start
            if start is not None and end is not None and end > start:
                rate = num_frames / ((end - start) * file.tick)
            rate = rate or ASSUMED_RATE
        else:
            self._timed = True
            num_frames = max(1, round((end - start) * file.tick * rate))
        self._start, self._rate = start or 0, rate
        duration = (
            (end - start) * file.tick if self._timed and end is not None and start is not None else num_frames / rate
        )
        return VideoInfo(
            width=width,
            height=height,
            duration_s=float(duration),
            fps=float(rate),
            num_frames=num_frames,
            codec=file.codec,
            container=file.container,
            rotation=self._rotation,
            has_audio=file.has_audio,
        )

    def _find_end(self, start: int, header_end: int, margin: Fraction) -> int | None:
        """Read the packets after the last keyframe: the end of the last frame, or None where seeking does not help."""
        while header_end - margin / self._file.tick > start:
            if self._file.seek(int(header_end - margin / self._file.tick)):
                _, end, last = self._read_to_end()
                if end is not None:
                    # Sound may go on longer than the pictures; what no stream reaches is missing.
                    missing = (header_end - max(end, last)) * self._file.tick
                    if missing > 1:
                        self.warnings.append(
                            f"{self._file.path.name} ends early: {float(missing):.1f} s of "
                            f"{float((header_end - start) * self._file.tick):.1f} s are missing"
                        )
                    return end
            margin *= 2
        return None

    def _scan(self) -> tuple[int, int | None]:
        """Read all packets, decoding none: (number of video packets, end of the last frame)."""
        self._file.rewind()
        return self._read_to_end()[:2]

    def _read_to_end(self) -> tuple[int, int | None, int]:
        """Read from here on: (video packets, end of the last frame in ticks, end of the longest stream in ticks)."""
        count, end, last = 0, None, 0
        step = round(1 / (self._file.header_rate or ASSUMED_RATE) / self._file.tick)
        for seen, packet in enumerate(self._file.packets(every_stream=True)):
            if seen > MAX_SCANNED_PACKETS:
                raise VideoError(f"{self._file.path.name} has no end in {MAX_SCANNED_PACKETS} packets: cut it")
            when = timestamp_of(packet)
            if packet.stream_index != self._file.stream.index:
                if when is not None:
                    last = max(last, int((when + (packet.duration or 0)) * packet.time_base / self._file.tick))
            elif packet.size:
                count += 1
                step = packet.duration or step
                if when is not None:
                    end = max(end if end is not None else when, when + step)
        return count, end, last

    # --- frames ---

    def frames_at(self, indices: Sequence[int]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield (seconds from the start, [H, W, 3] uint8 RGB, upright) for each of the ascending frame numbers.

        Where the file breaks off, its last frame stands for what is missing, and `warnings` says so.

        Raises:
            VideoError: A frame lies too far from its keyframe.
        """
        shown, image = None, None
        for index in indices:
            frame = self._reach(int(index))
            if image is None or frame is not shown:
                shown, image = frame, to_rgb(frame, self._rotation)
            when = timestamp_of(frame)
            if self._timed and when is not None:
                yield float((when - self._start) * self._file.tick), image
            else:
                yield float(index / self._rate), image
        if self._file.damaged:
            self.warnings.append(f"{self._file.path.name}: {self._file.damaged} damaged packets were left out")

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
        target = self._start + (index + Fraction(1, 2)) / self._rate / self._file.tick
        # Decoding on is always right; a seek is worth it when it saves more than it may repeat.
        if (target - self._position()) * self._file.tick > self._seek_cost:
            self._seek(target)
        return self._advance(lambda frame: (timestamp_of(frame) or 0) > target)

    def _position(self) -> int:
        frame = self._current or self._ahead
        return self._start if frame is None else timestamp_of(frame) or 0

    def _seek(self, target: Fraction) -> None:
        """Make ready to decode from a keyframe at or before a time in ticks."""
        before, margin = self._position(), Fraction(0)
        while target - margin > self._start and self._file.seek(int(target - margin)):
            frames = self._file.frames(from_keyframe=True)
            first = next(frames, None)
            landed = timestamp_of(first) if first is not None else None
            if landed is not None and landed <= target:
                # Back where decoding already was: the keyframes are farther apart than the frames that are wanted.
                self._seek_cost = (target - landed) * self._file.tick if landed <= before else SHORTEST_SEEK_S
                self._frames, self._current, self._ahead = frames, None, first
                return
            margin = max(1 / self._file.tick, 2 * margin)
        self._restart()
        self._seek_cost = (target - self._start) * self._file.tick

    def _advance(self, is_past: Callable[[av.VideoFrame], bool]) -> av.VideoFrame:
        """Decode on to the last frame that is not past the one wanted."""
        for _ in range(MAX_FRAMES_TO_REACH_ONE):
            self._ahead = self._ahead or next(self._frames, None)
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
