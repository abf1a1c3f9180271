"""A file that can be read only so far at a time: what a hostile file costs is bounded where its bytes come in."""

from __future__ import annotations

import io
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["START_CODE", "BoundedFile", "OverrunError"]

#: What H.264, H.265 and MPEG begin their units with.
START_CODE = b"\0\0\1"


class OverrunError(Exception):
    """More was to be read than the bounds of a file allow. (No OSError: libraries make something else of those.)"""


class BoundedFile:
    """A file for libraries that read by themselves, in steps that are each bounded by `allow`.

    A step that overruns its bounds ends the file for good: whatever the library does about it, it reads no further.

    Args:
        path: A file.
        name: Name that a library sees instead of the file's own.
        raising: Whether an overrun raises `OverrunError` in the library; otherwise it looks like the end of the file.
        size: Bytes of the file that a library sees; all of them where none are given.

    Attributes:
        overrun: Whether a step overran its bounds.
    """

    def __init__(self, path: Path, name: str = "", raising: bool = False, size: int | None = None) -> None:
        self.name = name
        self.overrun = False
        self._raising = raising
        self._longest_read = 2**63
        self._deferring = False
        self._raised: BaseException | None = None
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size if size is None else size
        self.allow()

    def allow(
        self,
        num_bytes: float = math.inf,
        reads: float = math.inf,
        seconds: float = math.inf,
        start_codes: float = math.inf,
    ) -> None:
        """Begin a step that may read so many bytes, in so many reads, until so many seconds from now.

        What it reads may hold so many start codes: libav sets aside 4 KiB for each unit of a packet, however small.
        """
        self._bytes_left, self._reads_left, self._until = num_bytes, reads, time.monotonic() + seconds
        self._start_codes_left = start_codes

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Keep Ctrl-C from a library that loses what is raised while it reads.

        What the handler of that signal raises ends the reading, and is raised at the end of the block. That costs some
        20 µs, as much as a small packet: put it around many calls where they follow one another.
        """
        handler = None if self._deferring else signal.getsignal(signal.SIGINT)
        if not callable(handler) or threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except BaseException as error:
                self._raised, self.overrun = error, True

        signal.signal(signal.SIGINT, note)
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
            signal.signal(signal.SIGINT, handler)
            if self._raised is not None:
                raise self._raised

    def limit_reads(self, size: int) -> None:
        """From now on give no more than so many bytes at once, for a library that takes less for an answer."""
        self._longest_read = size

    def read(self, size: int = -1) -> bytes:
        """Read as a binary file does.

        Raises:
            OverrunError: The step's bounds are reached, where `raising` was asked for.
        """
        left = max(0, self._size - self._file.tell())
        wanted = min(left if size < 0 else size, left, self._longest_read)
        self._bytes_left -= wanted
        self._reads_left -= 1
        if self._bytes_left < 0 or self._reads_left < 0 or time.monotonic() > self._until:
            self.overrun = True
        if not self.overrun:
            data = self._file.read(wanted)
            if self._start_codes_left < math.inf:
                self._start_codes_left -= data.count(START_CODE)
                self.overrun = self._start_codes_left < 0
            if not self.overrun:
                return data
        if self._raising:
            raise OverrunError
        return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        if whence == io.SEEK_END:
            return self._file.seek(max(0, self._size + offset))
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def fileno(self) -> int:
        """The file descriptor: libtiff reads pixels by it, which are bounded by their number."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> BoundedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
