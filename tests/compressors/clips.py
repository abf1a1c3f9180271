"""Clips of known structure, as features of a vision tower."""

from __future__ import annotations

import numpy as np

#: Cuts with a static share and noise; noise alone; equal frames; zero tokens; constant saliency; tokens with NaN, Inf
#: and huge values; tokens all nearly equal.
KINDS = ["scenes", "noise", "identical", "zero", "flat", "damaged", "still"]


def clip(shape: tuple[int, int, int], kind: str = "scenes", seed: int = 0) -> dict[str, np.ndarray]:
    """Every feature a method may need, float32, of a kind of `KINDS`."""
    frames, size, dim = shape
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((frames, size, dim))
    if kind == "identical":
        x[:] = x[0]
    elif kind == "still":
        x = rng.standard_normal(dim) + 0.05 * rng.standard_normal((size, dim)) + 1e-3 * x
    elif kind != "noise":
        still = np.zeros((size, 1), dtype=bool)
        for t in range(frames):
            if t % 4 == 0:
                still = rng.random((size, 1)) < 0.6
                scene = rng.standard_normal((size, dim))
            x[t] = scene + np.where(still, 0.1, 1.0) * x[t]
    saliency = rng.random((frames, size)) / size
    if kind == "zero":
        x[rng.random((frames, size)) < 0.5] = 0
    elif kind == "flat":
        saliency[:] = 1 / size
    elif kind == "damaged":
        # Damaged tokens count as zeros: several in a frame have to tie, in the graph as in the program.
        hit = (rng.random((frames, size, 1)) < 0.1) & (rng.random(x.shape) < 0.3)
        x[hit] = rng.choice([np.nan, np.inf, -np.inf, 1e9, -7e4], hit.sum())
        saliency[rng.random(saliency.shape) < 0.1] = np.nan
    width = max(1, dim // 4)
    features = {
        "frame_tokens": x,
        "saliency": saliency,
        "frame_features": x.mean(1) if kind != "damaged" else rng.standard_normal((frames, dim)),
        "keys": x[..., :width] if kind != "damaged" else rng.standard_normal((frames, size, width)),
    }
    return {name: value.astype(np.float32) for name, value in features.items()}
