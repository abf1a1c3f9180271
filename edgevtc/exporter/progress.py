"""What an export does, and how much of it is done."""

from __future__ import annotations

from collections.abc import Callable, Collection

__all__ = ["Progress", "silent"]


def silent(*news: object) -> None:
    """Tell nobody. A function with a name: other processes get it, too."""


class Progress:
    """Says each step of an export, and counts its parts.

    Steps and parts differ: a part may be taken over in no time or take several steps, and is done once.

    Args:
        parts: Names of all that is made or taken over, and of all that is verified.
        say: Called with the name of each step as it begins.
        count: Called with the number of parts that are done and of all: at once, and with each that is done.
    """

    def __init__(
        self,
        parts: Collection[str] = (),
        say: Callable[[str], None] = silent,
        count: Callable[[int, int], None] = silent,
    ) -> None:
        self._say, self._count = say, count
        self._left = set(parts)
        self._total = len(self._left)
        count(0, self._total)

    def __call__(self, step: str) -> None:
        """Say that a step begins."""
        self._say(step)

    def done(self, part: str) -> None:
        """Count a part, once; nothing happens where it is none of those named at first."""
        if part in self._left:
            self._left.remove(part)
            self._count(self._total - len(self._left), self._total)
