"""MP4 files taken apart into boxes and put together again, for tests and the fuzzer."""

from __future__ import annotations

import struct
from collections.abc import Callable

PARENTS = frozenset({b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf"})


def box(kind: bytes, content: bytes = b"") -> bytes:
    """A box, with its header."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def edit_boxes(data: bytes, edit: Callable[[bytes, bytes], bytes]) -> bytes:
    """Every box as ``edit(kind, content)`` gives it: with a header, or nothing. Those inside go first.

    Offsets of samples are left as they are: they hold where the index stands last.
    """
    parts, at = [], 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + length] if length >= 8 else data[at + 8 :]
        parts.append(edit(kind, edit_boxes(content, edit) if kind in PARENTS else content))
        at += 8 + len(content)
    return b"".join(parts)
