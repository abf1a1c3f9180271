"""A guard for MP4 and MOV: libav allocates what an index claims, before it reads what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from edgevtc.errors import VideoError

__all__ = ["check_sample_counts"]

#: Boxes on the way to a sample count.
CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"})
#: Box type → offset of its 32-bit sample count, from the end of the box's header (ISO/IEC 14496-12).
COUNT_AT = {b"stsz": 8, b"stz2": 8, b"trun": 4}
#: An hour of fragments of a tenth of a second has 250,000 boxes.
MAX_BOXES = 1_000_000


def check_sample_counts(path: Path) -> None:
    """Refuse a file whose sample tables claim more samples than it has bytes.

    A table that gives one size for all samples costs 20 bytes and may claim four thousand million of them; libav
    would set aside 24 bytes for each, and that for every track.

    Raises:
        VideoError: The claim is impossible.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        claimed = count_samples(file, size)
    if claimed > size:
        raise VideoError(f"{path.name} claims {claimed} samples in {size} bytes: its index is damaged")


def count_samples(file: BinaryIO, size: int) -> int:
    """Sum the sample counts of all tracks and fragments; 0 for what is no MP4."""
    total, position = 0, 0
    for _ in range(MAX_BOXES):
        if position >= size or total > size:
            break
        file.seek(position)
        header = file.read(16)
        length, kind, header_size = int.from_bytes(header[:4], "big"), header[4:8], 8
        if length == 1:
            length, header_size = int.from_bytes(header[8:16], "big"), 16
        if kind in COUNT_AT:
            file.seek(position + header_size + COUNT_AT[kind])
            total += int.from_bytes(file.read(4), "big")
        if length < header_size:
            break
        position += header_size if kind in CONTAINERS else length
    return total
