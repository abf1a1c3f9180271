"""What a clip's packets tell of its timeline, read to the end with none of them decoded."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from edgevtc.errors import VideoError
from edgevtc.video.libav import MP4_DEMUXERS, SHORTEST_JUMP_S, VideoFile, timestamp_of

__all__ = ["ASSUMED_RATE", "Tail", "another_follows", "read_to_end"]

#: A bound on what a hostile file can cost: packets read to learn a timeline.
MAX_SCANNED_PACKETS = 5_000_000
#: What a file is played at when it tells no rate at all.
ASSUMED_RATE = Fraction(25)
#: Containers that are read by one header; what a second one begins is never reached.
READ_BY_ONE_HEADER = frozenset({MP4_DEMUXERS, "flv", "asf", "apng"})
#: Bytes at the start of a file that tell its container, and how far after the last packet they are looked for: an
#: index may come between.
SIGNATURE_BYTES = 8
LONGEST_INDEX = 2**24


@dataclass(frozen=True)
class Tail:
    """What reading packets up to the end of a file tells."""

    packets: int  # that are shown: edit lists hide some
    rate: Fraction | None  # mean packets a second, by the times of decoding
    end: int | None  # in ticks, of the last frame shown
    end_of_all: int  # in ticks, of the longest stream
    end_in_file: int  # in bytes, of the last packet
    jumps: bool  # whether time goes back, as where recordings were joined
    untimed: bool  # whether a packet tells no time


def read_to_end(file: VideoFile) -> Tail:
    """Read packets from where the file stands.

    Raises:
        VideoError: There are too many packets, or the file's deadline has passed.
    """
    count, end_of_all, end_in_file, jumps, untimed = 0, 0, 0, False, False
    last: int | None = None
    last_duration = 0
    latest: int | None = None
    latest_number, steps, span = 0, 0, 0
    for seen, packet in enumerate(file.packets(every_stream=True)):
        if seen >= MAX_SCANNED_PACKETS:
            raise VideoError(f"{file.path.name} has more than {MAX_SCANNED_PACKETS} packets to look through: cut it")
        end_in_file = max(end_in_file, (packet.pos or 0) + packet.size)
        if packet.is_discard:
            continue
        when = timestamp_of(packet)
        if packet.stream_index != file.stream.index:
            if when is not None:
                end_of_all = max(end_of_all, int((when + (packet.duration or 0)) * packet.time_base / file.tick))
            continue
        count += 1
        untimed = untimed or when is None
        if when is not None and (last is None or when >= last):
            last, last_duration = when, packet.duration or 0
        if packet.dts is not None:
            if latest is not None and packet.dts > latest:
                span += packet.dts - latest
                steps += count - latest_number
            jumps = jumps or (latest is not None and (packet.dts - latest) * file.tick < -SHORTEST_JUMP_S)
            latest, latest_number = packet.dts, count
    rate = steps / (span * file.tick) if span else None
    duration = last_duration or round(1 / (file.rate or rate or ASSUMED_RATE) / file.tick)
    end = None if last is None else last + duration
    return Tail(count, rate, end, max(end_of_all, end or 0), end_in_file, jumps, untimed)


def another_follows(file: VideoFile, tail: Tail) -> bool:
    """Whether a second file was appended that libav passes over: its container begins anew after the last packet."""
    return file.container in READ_BY_ONE_HEADER and begins_anew(file.path, tail.end_in_file)


def begins_anew(path: Path, position: int) -> bool:
    """Whether the first bytes of a file come again soon after a position."""
    with path.open("rb") as file:
        signature = file.read(SIGNATURE_BYTES)
        file.seek(max(position, 1))
        return signature in file.read(LONGEST_INDEX)
