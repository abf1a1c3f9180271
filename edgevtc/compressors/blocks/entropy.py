"""Spectral entropy of a segment's tokens without an eigenvalue routine, which ONNX does not have.

The entropy is a trace, Σ −λ log λ = tr f(G), so the eigenvalues themselves are not needed. A sum of powers of 1−λ
with doubling exponents is a logarithm on an exponential scale: −log λ ≈ Σ wₘ (1−λ)^m for m = 0, 1, 2, 4, … 2¹⁶.
Each power is the square of the one before, so the whole function costs one small matrix product an octave.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgevtc.compressors.blocks.segments import Segments

__all__ = ["RICHNESS_MODES", "Richness", "richness", "trace_entropy"]

Richness = Literal["spectral", "renyi2", "sketch64"]

#: How a segment's richness can be measured, see :func:`richness`.
RICHNESS_MODES: tuple[Richness, ...] = ("spectral", "renyi2", "sketch64")

#: Leading directions that the spectral modes follow exactly.
HEAD = 16

#: Width of the random projection of the mode named after it.
SKETCH = 64

#: Doublings of the exponent: eigenvalues down to 2^−16 are resolved, smaller ones contribute next to nothing.
OCTAVES = 16


def richness(x: Tensor, segments: Segments, mode: Richness = "spectral") -> Tensor:
    """Normalised spectral entropy of each segment's tokens (InfoMerge, eq. 6 and 7).

    With π the shares of energy of the singular directions of X [len·N, D] and R = min(len·N, D) the entropy is
    −Σ π log π / log R, in [0, 1]. `spectral` takes the 16 leading directions from one power iteration and spreads
    the rest of the energy evenly over the other R−16; `renyi2` does the same for −log Σ π² instead;
    `sketch64` measures the entropy of a random projection to 64 dimensions, in one pass over the tokens, and is
    normalised by log min(R, 64). With no more dimensions than directions all three are exact for what they measure.

    Args:
        x: [T, N, D] float32 tokens.
        segments: The partition of the T frames.
        mode: One of RICHNESS_MODES.

    Returns:
        [T] float32, each segment's value on all of its frames; 0 for a segment of zero tokens.
    """
    tokens, dim = x.shape[1], x.shape[2]
    # Squares of all values would be as large as the clip.
    energy = segments.segment_sum(torch.linalg.vector_norm(x, dim=-1).square().sum(1))
    size = min(SKETCH if mode == "sketch64" else HEAD, dim)
    complete = size == dim
    if complete:
        projected = x
    elif mode == "sketch64":
        projected = x @ _probe(dim, size, x.device)
        energy = segments.segment_sum((projected * projected).sum((1, 2)))
    else:
        projected = x @ _leading_directions(x, segments, energy, size).transpose(1, 2)
    # A zero segment has no directions: scaling by zero keeps it at entropy 0.
    scale = torch.where(energy > 0, 1 / energy.clamp_min(1e-30), torch.zeros_like(energy))
    gram = segments.segment_sum(projected.transpose(1, 2) @ projected) * scale[:, None, None]

    rank = (segments.length * tokens).clamp_max(float(size if mode == "sketch64" else dim))
    others = (rank - size).clamp_min(1.0)
    held = torch.diagonal(gram, dim1=-2, dim2=-1).sum(-1)
    rest = (energy * scale - held).clamp_min(0)
    rest = torch.where((rank > size) & (rest > 0), rest, torch.zeros_like(rest))
    if mode == "renyi2":
        power = (gram * gram).sum((1, 2)) + rest * rest / others
        entropy = -torch.log(torch.where(power > 0, power, torch.ones_like(power)))
    else:
        entropy = trace_entropy(gram)
        if not complete:
            entropy = entropy - rest * torch.log(rest.clamp_min(1e-12) / others)
    return entropy / torch.log(rank.clamp_min(2.0))


def trace_entropy(gram: Tensor) -> Tensor:
    """Σ −λ log λ over the eigenvalues of symmetric matrices.

    Args:
        gram: [..., m, m] float32 with eigenvalues in [0, 1], up to rounding.

    Returns:
        [...] float32, in nats; off by at most 4e-6 for each eigenvalue.
    """
    weights = _power_weights()
    one = torch.eye(gram.shape[-1], device=gram.device) - gram
    powers = {0: torch.eye(gram.shape[-1], device=gram.device), 1: one}
    for octave in range(1, OCTAVES + 1):
        half = powers[2 ** (octave - 1)]
        powers[2**octave] = half @ half
    powers[3], powers[5] = one @ powers[2], one @ powers[4]
    total = sum((weight * powers[m] for m, weight in weights.items()), torch.zeros_like(gram))
    return (gram * total).sum((-2, -1))


@functools.cache
def _power_weights() -> dict[int, float]:
    """Exponent m → weight wₘ of −λ log λ ≈ Σ wₘ λ(1−λ)^m, by least squares on a logarithmic grid."""
    exponents = sorted([0, 3, 5, *(2**octave for octave in range(OCTAVES + 1))])
    small = np.logspace(-9, 0, 3000)
    grid = np.concatenate([small, 1 - small[:-1:3]])
    basis = grid[:, None] * (1 - grid[:, None]) ** np.array(exponents)
    weights = np.linalg.lstsq(basis, -grid * np.log(grid), rcond=None)[0]
    return dict(zip(exponents, weights.tolist(), strict=True))


def _leading_directions(x: Tensor, segments: Segments, energy: Tensor, size: int) -> Tensor:
    """[T, size, D] orthonormal rows near the segment's leading right singular vectors: one power iteration."""
    image = (x @ _probe(x.shape[2], size, x.device)).transpose(1, 2) @ x
    # Divided by the energy first: squares of the raw sums would leave float32.
    image = segments.segment_sum(image / energy.clamp_min(1e-30)[:, None, None])
    # What is left of a direction after the others are taken out of it may be nothing but rounding.
    noise = 1e-5 * torch.linalg.vector_norm(image, dim=-1, keepdim=True)
    rows: list[Tensor] = []
    for k in range(size):
        row = _unit(image[:, k : k + 1], noise[:, k : k + 1], rows)
        # Gram–Schmidt loses orthogonality once, not twice.
        rows.append(_unit(row, 0.1, rows) if rows else row)
    return torch.cat(rows, 1)


def _unit(row: Tensor, noise: Tensor | float, others: list[Tensor]) -> Tensor:
    """Row [T, 1, D] without its part along the others, of length 1; zero where no more than noise is left."""
    if others:
        found = torch.cat(others, 1)
        # bmm, for a product of batches by @ is traced as five nodes.
        row = row - torch.bmm(torch.bmm(row, found.transpose(1, 2)), found)
    length = torch.linalg.vector_norm(row, dim=-1, keepdim=True)
    return row * torch.where(length > noise, 1 / length, torch.zeros_like(length))


def _probe(dim: int, size: int, device: torch.device) -> Tensor:
    """[dim, size] constant Gaussian matrix; RandomState's stream is frozen, so it is the same everywhere."""
    values = np.random.RandomState(0).standard_normal((dim, size)) / dim**0.5
    return torch.from_numpy(values.astype(np.float32)).to(device)
