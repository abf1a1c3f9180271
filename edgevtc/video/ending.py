"""What the end of a file tells: whether it was cut, where no header knows how long it should be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["breaks_off_in"]

#: Bytes read at once in search of something.
STEP = 2**20


class Data:
    """A file's bytes, read where they are asked for: a mapped file that shrinks would end the process."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice) -> bytes:
        start, stop, step = where.indices(self._size)
        self._file.seek(start)
        return self._file.read(max(0, stop - start))[::step]

    def rfind(self, wanted: bytes, start: int, stop: int) -> int:
        """Where the last such bytes begin of those between two positions; -1 where there are none."""
        while stop - start >= len(wanted):
            begin = max(start, stop - STEP)
            at = self[begin:stop].rfind(wanted)
            if at >= 0:
                return begin + at
            stop = begin + len(wanted) - 1 if begin > start else start
        return -1


def breaks_off_in(path: Path, container: str) -> str:
    """What a file ends in the middle of, as a cut one does; "" where it is whole, or its container does not tell.

    Args:
        path: A file.
        container: Its container, by libav's name.
    """
    if container not in ENDINGS:
        return ""
    part, is_cut = ENDINGS[container]
    with path.open("rb") as file:
        return part if is_cut(Data(file)) else ""


# --- MPEG transport streams: packets of one length ---

SYNC = 0x47
#: Bytes a packet, and where in it the sync byte stands: plain, with an arrival time (M2TS), with a checksum.
LAYOUTS = ((188, 0), (192, 4), (204, 0))
#: So many packets at the start tell the layout.
LOOKED_AT = 5


def transport_stream_is_cut(data: Data) -> bool:
    """Whether the last packet is not whole; False where the layout is not plain."""
    for length, at in LAYOUTS:
        syncs = data[at : length * LOOKED_AT : length]
        if len(syncs) == LOOKED_AT and set(syncs) == {SYNC}:
            return len(data) % length != 0
    return False


# --- Matroska: elements of an identifier, a length, and contents, which may be elements again ---

EBML, SEGMENT, CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
VOID, CHECKSUM, TIMESTAMP = b"\xec", b"\xbf", b"\xe7"
OUTERMOST = frozenset({EBML, SEGMENT, VOID, CHECKSUM})
#: What a cluster begins with: pictures may hold the four bytes of its identifier by chance.
FIRST_IN_CLUSTER = (TIMESTAMP, CHECKSUM, VOID)
LONGEST_IDENTIFIER = 4
#: Bounds on the search for the last cluster, in bytes from the end and in places, and on the walk from there.
SEARCHED_BYTES = 2**26
MAX_PLACES = 1000
MAX_ELEMENTS = 100_000


def matroska_is_cut(data: Data) -> bool:
    """Whether the last element is not whole. Where the file as a whole has no length, its last cluster tells."""
    position, in_segment = 0, False
    for _ in range(MAX_ELEMENTS):
        if position >= len(data):
            return position > len(data)
        kind, start, length = element_at(data, position)
        if len(kind) > LONGEST_IDENTIFIER or (not in_segment and kind not in OUTERMOST):
            return False  # what follows the end is no part of it
        if length is not None:
            position = start + length
        elif kind == SEGMENT:
            position, in_segment = max(start, last_cluster(data, start)), True
        elif kind == CLUSTER:
            position = start
        else:
            return start > len(data)
    return False


def element_at(data: Data, position: int) -> tuple[bytes, int, int | None]:
    """Identifier, start of the contents, and their length: None where it is not told, or the file ends before it."""
    kind_end = position + width_at(data, position)
    start = kind_end + width_at(data, kind_end)
    digits = 7 * (start - kind_end)
    unknown = 2**digits - 1
    length = int.from_bytes(data[kind_end:start], "big") & unknown
    return data[position:kind_end], start, None if length == unknown or start > len(data) else length


def width_at(data: Data, position: int) -> int:
    """Bytes of a number, of which the first tells how many: 1 to 8, or 9 where there is none."""
    return 9 - int.from_bytes(data[position : position + 1], "big").bit_length()


def last_cluster(data: Data, start: int) -> int:
    """Where the last cluster after a position begins, as far as it is looked for; -1 where there is none."""
    earliest, at = max(start, len(data) - SEARCHED_BYTES), len(data)
    for _ in range(MAX_PLACES):
        at = data.rfind(CLUSTER, earliest, at)
        if at < 0:
            break
        _, first, _ = element_at(data, at)
        if data[first : first + 1] in FIRST_IN_CLUSTER:
            return at
    return -1


# --- Ogg: pages of several streams, the last of each marked ---

PAGE = b"OggS\0"
PAGE_HEADER_BYTES = 27
LAST_OF_STREAM = 4
#: Bytes at the end in which pages are looked at; a page has 64 KiB at most.
PAGES_BYTES = 2**20


def ogg_is_cut(data: Data) -> bool:
    """Whether a stream lacks its last page, of those that have a page near the end."""
    ended: dict[bytes, bool] = {}
    tail = data[max(0, len(data) - PAGES_BYTES) :]
    at = tail.find(PAGE)
    while at >= 0:
        segments = at + PAGE_HEADER_BYTES
        contents = segments + int.from_bytes(tail[segments - 1 : segments], "big")
        end = contents + sum(tail[segments:contents])
        if end > len(tail):
            return True
        ended[tail[at + 14 : at + 18]] = bool(tail[at + 5] & LAST_OF_STREAM)
        at = tail.find(PAGE, end)
    return not all(ended.values())


# --- AVI: chunks of an identifier, a length, and contents ---

CHUNK_HEADER_BYTES = 8
#: Some programs count the header of the file's one chunk with what it holds.
COUNTED_TOO_MUCH = 8
#: One holds a gigabyte or so.
MAX_OUTER_CHUNKS = 10_000


def avi_is_cut(data: Data) -> bool:
    """Whether the last chunk is not whole: one holds all of the file, or several where it is large."""
    position = 0
    for _ in range(MAX_OUTER_CHUNKS):
        if data[position : position + 4] != b"RIFF":
            break
        position += CHUNK_HEADER_BYTES + int.from_bytes(data[position + 4 : position + 8], "little")
    return position > len(data) + COUNTED_TOO_MUCH


# --- MXF: its first partition knows where the last one is ---

FIRST_PARTITION = bytes.fromhex("060e2b34020501010d0102010102")
KEY_BYTES = 16
LONG_FORM = 0x80


def mxf_is_cut(data: Data) -> bool:
    """Whether the last partition, which holds the index, would begin after the end."""
    if data[: len(FIRST_PARTITION)] != FIRST_PARTITION:
        return False
    length = int.from_bytes(data[KEY_BYTES : KEY_BYTES + 1], "big")
    at = KEY_BYTES + 1 + (length - LONG_FORM if length >= LONG_FORM else 0) + 24
    return int.from_bytes(data[at : at + 8], "big") >= len(data)


# --- ASF: its header knows the size of the file ---

FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
LONGEST_HEADER = 2**20
STILL_WRITTEN = 1


def asf_is_cut(data: Data) -> bool:
    """Whether the file is smaller than its header says; what is still being written does not say it."""
    at = data[:LONGEST_HEADER].find(FILE_PROPERTIES)
    if at < 0 or int.from_bytes(data[at + 88 : at + 92], "little") & STILL_WRITTEN:
        return False
    return len(data) < int.from_bytes(data[at + 40 : at + 48], "little")


#: Container → what a cut file of it ends in the middle of, and how that is seen.
ENDINGS: dict[str, tuple[str, Callable[[Data], bool]]] = {
    "mpegts": ("a packet", transport_stream_is_cut),
    "matroska,webm": ("an element", matroska_is_cut),
    "ogg": ("a stream", ogg_is_cut),
    "avi": ("a chunk", avi_is_cut),
    "mxf": ("its data", mxf_is_cut),
    "asf": ("its data", asf_is_cut),
}
