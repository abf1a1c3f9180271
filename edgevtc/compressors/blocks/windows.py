"""HoliTom's global segmentation: the windows whose static positions save the most tokens, by dynamic programming."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["best_windows", "window_gains"]


def window_gains(still: Tensor) -> Tensor:
    """Tokens saved by each window: (its static positions) × (its frames − 1).

    Args:
        still: [T, N] bool, whether position n of frame t looks as in frame t−1 (row 0 is not read).

    Returns:
        [T, T] float32; entry (s, e) is the gain of the window from frame s to frame e, both included. Entries
        with s > e have no meaning.
    """
    frames = still.shape[0]
    frame = torch.arange(frames, dtype=torch.float32, device=still.device)
    changes = torch.ones(frames, frames, device=still.device).tril() @ (~still).to(torch.float32)
    static = (changes[:, None, :] == changes[None, :, :]).sum(-1, dtype=torch.float32)
    return static * (frame[None, :] - frame[:, None])


def best_windows(gains: Tensor, max_window: int | None = None) -> tuple[Tensor, Tensor]:
    """Partition the frames so that the sum of the gains is largest (HoliTom, eq. of section 3.2).

    Of equal sums the published code takes, at each end of a window, the shortest one; so does this.

    Args:
        gains: [T, T] float32 as from :func:`window_gains`; a single frame gains 0.
        max_window: Most frames of a window.

    Returns:
        start [T] float32, 1 at the first frame of each window; the largest sum, 0-d float32.
    """
    frames = gains.shape[0]
    frame = torch.arange(frames, dtype=torch.float32, device=gains.device)
    span = frame[None, :] - frame[:, None]
    allowed = (span >= 0) & (span < (max_window or frames))
    gains = torch.where(allowed, gains, torch.full_like(gains, -1.0))

    # best[s] is the largest sum over the frames before s, for every s reached so far; −inf would make NaN.
    unreached = -float(2**24)
    best = torch.where(frame == 0, torch.zeros_like(frame), torch.full_like(frame, unreached))
    choices, total = [], best[0]
    for end in range(frames):
        sums = torch.where(allowed[:, end], best + gains[:, end], torch.full_like(best, unreached))
        total = sums.max()
        choices.append(torch.where(sums == total, frame, torch.full_like(frame, -1.0)).max())
        best = torch.where(frame == end + 1, total, best)
    choice = torch.stack(choices)

    # Backtracking: from the last frame, follow "window end → end of the window before" by doubling the step.
    step = (frame[None, :] == choice[:, None] - 1).to(torch.float32)
    is_end = (frame == frames - 1).to(torch.float32)[None, :]
    for _ in range(math.ceil(math.log2(frames))):
        is_end = is_end + is_end @ step
        step = step @ step
    begins = (choice[:, None] == frame[None, :]).to(torch.float32)
    return (is_end @ begins).reshape(-1), total
