"""What each frame does for itself, in counts that are known when the program is built."""

from __future__ import annotations

__all__ = ["even_shares", "even_steps"]


def even_shares(total: int, frames: int) -> list[int]:
    """Whole shares of `total` for each frame that differ by one at most, the larger ones spread over time."""
    return [(t + 1) * total // frames - t * total // frames for t in range(frames)]


def even_steps(size: int, count: int, start: float = 0.5) -> list[int]:
    """`count` of the indices below `size` at even steps, `start` steps from the first; ascending."""
    return [int((i + start) * size / count) for i in range(count)]
