"""What there is to draw: the sampled frames, and for each method where every token went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DROPPED", "PALETTE", "Panel", "Scene", "Segment", "colour_groups"]

#: Assignment of a token that no slot took.
DROPPED = -1

#: Okabe and Ito, "Color Universal Design" (2008), without black: told apart with every common colour blindness.
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


class Segment(NamedTuple):
    """A run of frames that the method took together: its first and last frame, and the slots that stand in it."""

    first: int
    last: int
    kept: int


@dataclass(frozen=True)
class Panel:
    """One method's decision on the clip.

    Attributes:
        method: Compression method.
        positions_mode: `original` or `contiguous`.
        positions: [B] int32 raster index t·N+n of each slot.
        counts: [B] int32 inputs folded into each slot.
        assignment: [T, N] int32 slot of each input, −1 where dropped.
        answer: The model's answer, or "" where nothing was asked.
        segment_of: [T] int32 index of the segment each frame belongs to; None where the graph gives none.
        finish_reason: Why the answer ended, see :attr:`edgevtc.answer.Answer.finish_reason`, or "" where nothing was
            asked.
    """

    method: str
    positions_mode: str
    positions: NDArray[np.int32]
    counts: NDArray[np.int32]
    assignment: NDArray[np.int32]
    answer: str = ""
    segment_of: NDArray[np.int32] | None = None
    finish_reason: str = ""

    @property
    def kept(self) -> int:
        """B."""
        return len(self.positions)

    @property
    def total(self) -> int:
        """T·N."""
        return self.assignment.size

    @property
    def merged(self) -> int:
        """Slots that more than one token went into."""
        return int((self.counts > 1).sum())

    @property
    def dropped(self) -> int:
        """Tokens that no slot took."""
        return int((self.assignment == DROPPED).sum())

    @property
    def kept_per_frame(self) -> list[int]:
        """[T] slots whose position is in each frame."""
        frames, tokens = self.assignment.shape
        return np.bincount(self.positions // tokens, minlength=frames).tolist()

    @property
    def segments(self) -> list[Segment]:
        """The method's segments in order; none where it has none."""
        if self.segment_of is None:
            return []
        first = np.flatnonzero(np.diff(self.segment_of, prepend=-1))
        last = [*(first[1:] - 1), len(self.segment_of) - 1]
        kept = np.add.reduceat(self.kept_per_frame, first)
        return [Segment(int(a), int(b), int(c)) for a, b, c in zip(first, last, kept, strict=True)]


@dataclass(frozen=True)
class Scene:
    """A clip and the methods side by side.

    Attributes:
        video: Name of the source.
        model: Name of the bundle's model.
        bundle_sha256: Hash of the bundle's manifest.
        grid: (rows, columns) of tokens in a frame.
        frames: T pictures [h, w, 3] uint8 of one size, as sampled, before the model's own resize.
        times_s: [T] seconds.
        panels: One or more methods.
        question: What was asked, or "".
        warnings: What the reader had to say about the video, and why the model was not asked about it.
    """

    video: str
    model: str
    bundle_sha256: str
    grid: tuple[int, int]
    frames: list[NDArray[np.uint8]]
    times_s: list[float]
    panels: list[Panel]
    question: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def segmented(self) -> bool:
        """Whether a method divided the clip."""
        return any(panel.segments for panel in self.panels)


def colour_groups(panel: Panel, grid: tuple[int, int]) -> NDArray[np.int64]:
    """Colour of each slot that stands for several tokens.

    Colours are fewer than groups, so they repeat; each group, the largest first, takes the colour it shares the
    shortest border with, in space and between a frame and the next, and of those the one used least.

    Args:
        panel: The method's decision.
        grid: (rows, columns) of tokens in a frame.

    Returns:
        [B] index into :data:`PALETTE`, −1 for a slot of one token.
    """
    cube = panel.assignment.reshape(-1, *grid)
    touching = [(cube[1:], cube[:-1]), (cube[:, 1:], cube[:, :-1]), (cube[:, :, 1:], cube[:, :, :-1])]
    pairs = np.concatenate([np.stack([one.ravel(), other.ravel()], 1) for one, other in touching])
    pairs = pairs[(pairs[:, 0] != pairs[:, 1]) & (pairs != DROPPED).all(1)]
    borders: dict[int, dict[int, int]] = {}
    for (one, other), length in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
        for here, there in ((int(one), int(other)), (int(other), int(one))):
            neighbours = borders.setdefault(here, {})
            neighbours[there] = neighbours.get(there, 0) + int(length)
    colours = np.full(panel.kept, -1)
    used = [0] * len(PALETTE)
    for slot in np.argsort(-panel.counts, kind="stable"):
        if panel.counts[slot] < 2:
            break
        shared = [0] * len(PALETTE)
        for neighbour, length in borders.get(int(slot), {}).items():
            if colours[neighbour] >= 0:
                shared[colours[neighbour]] += length
        colour = min(range(len(PALETTE)), key=lambda index: (shared[index], used[index], index))
        colours[slot] = colour
        used[colour] += 1
    return colours
