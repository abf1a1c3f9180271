"""How far an array is from the one it should be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Decisions", "Difference", "compare_decisions", "difference"]


@dataclass(frozen=True)
class Difference:
    """Of an array from the expected one.

    Attributes:
        worst: Largest absolute difference, over the largest magnitude expected; infinite where a value is not finite.
        mean: Mean absolute difference, likewise.
        cosine: Between the two as vectors.
    """

    worst: float
    mean: float
    cosine: float


def difference(actual: np.ndarray, expected: np.ndarray) -> Difference:
    """Compare arrays of one shape; of two shapes, everything is wrong."""
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return Difference(float("inf"), float("inf"), 0.0)
    a, b = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    scale = float(np.abs(b).max(initial=0.0)) or 1.0
    apart = np.abs(a - b)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / norms if norms else float(np.array_equal(a, b))
    return Difference(float(apart.max(initial=0.0)) / scale, float(apart.mean()) / scale if len(a) else 0.0, cosine)


@dataclass(frozen=True)
class Decisions:
    """What a compressor decided, beside the expected decisions.

    Attributes:
        overlap: Share of the expected positions that were kept.
        agreement: Share of the T·N inputs that went where they should: into the slot at the same position, or out.
        slots: [n] indices into the B slots made of exactly the expected inputs, and …
        expected_slots: [n] … the slots they should equal.
    """

    overlap: float
    agreement: float
    slots: np.ndarray
    expected_slots: np.ndarray


def compare_decisions(
    positions: np.ndarray, assignment: np.ndarray, expected_positions: np.ndarray, expected_assignment: np.ndarray
) -> Decisions:
    """Compare kept positions [B] and where each input went [T, N]."""
    common, slots, expected_slots = np.intersect1d(positions, expected_positions, return_indices=True)
    went, should = (
        np.where(slot >= 0, place[np.clip(slot, 0, len(place) - 1)], -1).ravel()
        for slot, place in ((assignment, positions), (expected_assignment, expected_positions))
    )
    apart = went != should
    same = ~np.isin(common, np.concatenate([went[apart], should[apart]]))
    return Decisions(
        overlap=len(common) / len(expected_positions),
        agreement=1.0 - float(apart.mean()),
        slots=slots[same],
        expected_slots=expected_slots[same],
    )
