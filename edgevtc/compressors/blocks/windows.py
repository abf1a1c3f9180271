"""HoliTom's global segmentation: the windows whose static positions save the most tokens, by dynamic programming."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from edgevtc.compressors.blocks.frames import reference_cosine
from edgevtc.compressors.blocks.segments import Segments

__all__ = ["best_windows", "static_positions", "still_positions", "window_gains"]


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
    # Below every sum, yet no −inf, which would make NaN of a difference.
    unreached = -float(2**24)
    gains = torch.where((span >= 0) & (span < (max_window or frames)), gains, unreached)

    # Between windows lie T+1 boundaries. Longest paths over them by doubling the number of windows in a path:
    # ⌈log₂ T⌉ steps, all boundaries at once. The sums are whole numbers and exact.
    path = functional.pad(gains, (1, 0, 0, 1), value=unreached)
    for _ in range(math.ceil(math.log2(frames))):
        path = torch.maximum(path, (path[:, :, None] + path[None, :, :]).amax(1))
    best = torch.where(frame == 0, 0.0, path[0, :-1])

    sums = best[:, None] + gains
    total = sums.amax(0)
    choice = torch.where(sums == total, frame[:, None], -1.0).amax(0)

    # Backtracking: from the last frame, follow "window end → end of the window before" by doubling the step.
    step = (frame[None, :] == choice[:, None] - 1).to(torch.float32)
    is_end = (frame == frames - 1).to(torch.float32)[None, :]
    for _ in range(math.ceil(math.log2(frames))):
        is_end = is_end + is_end @ step
        step = step @ step
    begins = (choice[:, None] == frame[None, :]).to(torch.float32)
    return (is_end @ begins).reshape(-1), total[-1]


def still_positions(products: Tensor, frames: int, threshold: float) -> Tensor:
    """Where a token looks as it did in the frame before: cosine > threshold, in float32.

    Args:
        products: [N, T·T] as from :func:`edgevtc.compressors.blocks.frames.frame_products`.
        frames: T.
        threshold: τ. A token of length below 1e-6 has cosine 0 with all.

    Returns:
        [T, N] bool; the first frame has no frame before and is false.
    """
    first = torch.zeros(1, products.shape[0], dtype=torch.bool, device=products.device)
    if frames == 1:
        return first
    cosine = reference_cosine(products, [0, *range(frames - 1)])
    return torch.cat([first, cosine[1:] > threshold])


def static_positions(still: Tensor, segments: Segments) -> Tensor:
    """[T, N] bool positions that stay still through their frame's whole window; none in a window of one frame.

    Args:
        still: [T, N] bool as from :func:`still_positions`.
        segments: The windows.
    """
    moves = (~still).to(torch.float32) * (1 - segments.start)[:, None]
    return (segments.segment_sum(moves) == 0) & (segments.length > 1)[:, None]
