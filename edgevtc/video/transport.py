"""Packets of MPEG transport streams: whether the last one is whole."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ends_in_a_packet"]

SYNC = 0x47
#: Bytes a packet, and where in it the sync byte stands: plain, with an arrival time (M2TS), with a checksum.
LAYOUTS = ((188, 0), (192, 4), (204, 0))
#: So many packets at the start tell the layout.
LOOKED_AT = 5


def ends_in_a_packet(path: Path) -> bool:
    """Whether a transport stream ends within a packet, as a cut file does; False where its layout is not plain."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(204 * LOOKED_AT)
    for length, at in LAYOUTS:
        syncs = head[at : length * LOOKED_AT : length]
        if len(syncs) == LOOKED_AT and set(syncs) == {SYNC}:
            return size % length != 0
    return False
