"""A guard for MP4 and MOV: libav builds the index that a file claims while it opens it, whatever the file holds.

That index is not read but computed, from counts: twenty bytes may claim four thousand million samples, and no bound on
what is read holds. So the boxes are walked here first, as libav walks them, and their claims are added up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevtc.errors import VideoError

__all__ = ["Boxes", "check_index"]

#: Boxes that libav looks for boxes in. It takes a table from wherever it stands, and so does this.
CONTAINERS = frozenset(b"moov trak mdia minf stbl moof traf edts mvex dinf tref udta ilst sinf schi wave hoov".split())
#: Boxes that hold others behind fields of their own: no table belongs there, but libav would take it.
DESCRIPTIONS = frozenset({b"stsd", b"iprp", b"meta"})
MAX_DESCRIPTION_BYTES = 2**24
#: Boxes that libav knows an MP4 or a MOV by, where they come first.
FIRST = frozenset(b"ftyp moov mdat udta pnot wide free junk pict ediw".split())
#: Boxes that a fragment is made of, or that stand between fragments.
OF_FRAGMENTS = frozenset(b"moof mdat styp sidx ssix emsg prft mfra".split())
TABLES = (b"stsz", b"stz2", b"trun", b"stsc", b"ctts", b"sbgp", b"elst", b"cmov")
#: libav goes to a depth of 11, and refuses a file that goes deeper.
MAX_DEPTH = 16
#: Two and a half hours of fragments of a single frame, at 30 a second.
MAX_BOXES = 2_000_000
#: Entries of libav's index, which takes up to 70 bytes for each. A day at 60 frames a second has 9.2 million, sound
#: with it.
MAX_ENTRIES = 12_000_000
#: Edits of a track that show something. Each costs libav, and who looks through the file, up to all samples anew.
MAX_EDITS = 1000
#: Uncompressed sound is indexed in pieces of so many samples, or more.
SHORTEST_PIECE = 160
REMUX = "copy it into a new file (ffmpeg -i OLD -c copy NEW.mp4)"


class ClaimError(Exception):
    """What is wrong with an index, and what to do."""


class Boxes(NamedTuple):
    """What a walk through a file's boxes tells."""

    is_mp4: bool  # or a MOV, by its first bytes
    usable: int  # bytes that libav may see: it refuses a file that ends within what describes a fragment
    cut: bool  # whether it ends in the middle of a fragment


def check_index(path: Path) -> Boxes:
    """Refuse a file whose index claims more samples than it has bytes, or more than fit in memory.

    Raises:
        VideoError: The claim is impossible, too large, or hidden.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        walk = Walk(file, size)
        try:
            walk.descend(0, size)
            walk.finish_track()
        except ClaimError as error:
            raise VideoError(f"{path.name} {error}") from None
        file.seek(4)
        is_mp4 = file.read(4) in FIRST
        return Boxes(is_mp4, *(walk.end_of_fragments() if is_mp4 else (size, False)))


@dataclass
class Track:
    """What the boxes of one track, or of one fragment, claim."""

    samples: int = 0
    edits: int = 0
    chunks: int = 0
    handlers: set[bytes] = field(default_factory=set)
    durations: set[bytes] = field(default_factory=set)  # tables of durations, as far as their first entry
    runs: list[tuple[int, int]] = field(default_factory=list)  # where tables of samples a chunk begin and end
    grouped: bool = False
    unrolled: list[tuple[int, int]] = field(default_factory=list)  # tables of counts that are unrolled for groups


class Walk:
    """A walk through a file's boxes that adds up claims; for what is no MP4, a short one.

    Args:
        file: The file.
        size: Its size in bytes.

    Raises:
        ClaimError: From every method: the sum is impossible, too large, or hidden.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._boxes = self._samples = self._entries = 0
        self._track = Track()
        self._fragmented = False
        self._last, self._last_at, self._last_end = b"", 0, 0  # of those that are in no other

    def descend(self, position: int, end: int, depth: int = 0) -> None:
        """Walk the boxes from a position on."""
        while position + 8 <= end and depth < MAX_DEPTH:
            self._boxes += 1
            if self._boxes > MAX_BOXES:
                raise ClaimError(f"has more than {MAX_BOXES} boxes, which may hide its index: {REMUX}")
            header = self._read(position, 16)
            length, kind, start = int.from_bytes(header[:4], "big"), header[4:8], position + 8
            if length == 1:
                length, start = int.from_bytes(header[8:], "big"), position + 16
            elif length == 0:
                length = end - position  # to the end of the box around it
            if length < start - position:
                return  # libav, too, goes on behind the box around it
            if depth == 0:
                self._fragmented = self._fragmented or kind == b"moof"
                self._last, self._last_at, self._last_end = kind, position, position + length
            position = min(position + length, end)
            if kind == b"free" and self._read(start + 4, 4) in (b"mvhd", b"cmov"):
                kind = b"moov"  # libav's second thought about a file without one
            elif kind == b"meta" and (handler := self._read(start, 16).find(b"hdlr")) >= 4:
                start, kind = start + handler - 4, b"udta"  # with fields ahead of its boxes, or without
            elif kind in (b"trak", b"moof"):
                self.finish_track()
            if kind in CONTAINERS:
                self.descend(start, position, depth + 1)
            else:
                self._take(kind, start, position)

    def end_of_fragments(self) -> tuple[int, bool]:
        """Bytes up to where the last fragment can be used, and whether it is cut."""
        left = self._size - self._last_end
        if not self._fragmented or (left >= 0 and self._last not in OF_FRAGMENTS):
            return self._size, False
        if left >= 0:
            # The header of another box, or nothing of a fragment but its description.
            return self._last_end, 0 < left < 8 or self._last == b"moof"
        is_cut = self._last in OF_FRAGMENTS
        return (self._last_at if is_cut and self._last != b"mdat" else self._size), is_cut

    def finish_track(self) -> None:
        """Add the entries of the track before; begin another."""
        track, self._track = self._track, Track()
        sound = b"soun" in track.handlers and not track.handlers & {b"vide", b"subp", b"clcp"}
        # Samples of uncompressed sound are counted one by one, and last one unit of time each: libav takes them by
        # the piece.
        single = sound and track.durations == {b"\0\0\0\1\0\0\0\1"}
        entries = 0 if single else track.samples
        if sound:
            entries += sum(self._pieces(track.chunks, *place) for place in track.runs)
        if track.grouped:
            entries += sum(int(self._rows(*place, width=2)[:, 0].sum()) for place in track.unrolled)
        # Where there is one keyframe, every edit of the track goes over all its samples, however short it is.
        self._entries += entries * max(1, track.edits)
        if self._entries > MAX_ENTRIES:
            raise ClaimError(
                f"claims an index of {self._entries} entries, edits counted, above the limit of {MAX_ENTRIES}: "
                f"cut it, or {REMUX}"
            )

    def _take(self, kind: bytes, start: int, end: int) -> None:
        """Take what one box claims."""
        track = self._track
        if kind == b"cmov":
            raise ClaimError(f"has a compressed index, which may claim anything: {REMUX}")
        if kind in (b"stsz", b"stz2"):
            self._count(self._number(start + 8))
        elif kind == b"trun":
            self._count(self._number(start + 4))
        elif kind == b"elst":
            track.edits += self._edits(start, end)
            if track.edits > MAX_EDITS:
                raise ClaimError(f"has {track.edits} edits on one track, above the limit of {MAX_EDITS}: {REMUX}")
        elif kind in (b"stco", b"co64"):
            track.chunks += min(self._number(start + 4), (end - start) // 4)
        elif kind == b"stsc":
            track.runs.append((start + 8, end))
        elif kind == b"stts":
            track.durations.add(self._read(start + 4, 4) + self._read(start + 12, 4))
        elif kind == b"hdlr":
            track.handlers.add(self._read(start + 8, 4))
        elif kind == b"sgpd":
            track.grouped = True
        elif kind == b"ctts":
            track.unrolled.append((start + 8, end))
        elif kind == b"sbgp":
            track.unrolled.append((start + (16 if self._read(start, 1) == b"\1" else 12), end))
        elif kind in DESCRIPTIONS:
            inside = self._read(start, min(end - start, MAX_DESCRIPTION_BYTES + 1))
            if len(inside) > MAX_DESCRIPTION_BYTES or any(table in inside for table in TABLES):
                raise ClaimError(f"is damaged, or hides its index where none belongs: {REMUX}")

    def _count(self, samples: int) -> None:
        self._samples += samples
        self._track.samples += samples
        if self._samples > self._size:
            raise ClaimError(f"claims {self._samples} samples in {self._size} bytes: its index is damaged")

    def _edits(self, start: int, end: int) -> int:
        """Edits that show something. An empty one only says how late a track begins."""
        width = 5 if self._read(start, 1) == b"\1" else 3
        times = self._rows(start + 8, end, width)[:, 2 if width == 5 else 1]
        return int(np.count_nonzero(times != 2**32 - 1))

    def _pieces(self, chunks: int, start: int, end: int) -> int:
        """Pieces of uncompressed sound, by a table of (first chunk, samples a chunk, description)."""
        first, samples, _ = self._rows(start, end, width=3).T
        of_each = np.diff(first, append=chunks + 1).clip(0)
        return int((of_each * (samples // SHORTEST_PIECE + 1)).clip(0, MAX_ENTRIES + 1).sum())

    def _rows(self, start: int, end: int, width: int) -> NDArray[np.int64]:
        """A table of 32-bit numbers, [rows, width] int64."""
        rows = (min(end, self._size) - start) // (4 * width)
        if rows > MAX_ENTRIES:
            raise ClaimError(f"has a table of {rows} entries in its index, above the limit of {MAX_ENTRIES}: cut it")
        data = self._read(start, max(0, rows) * 4 * width)
        return np.frombuffer(data, ">u4").reshape(-1, width).astype(np.int64)

    def _number(self, position: int) -> int:
        return int.from_bytes(self._read(position, 4), "big")

    def _read(self, position: int, size: int) -> bytes:
        self._file.seek(position)
        return self._file.read(size)
