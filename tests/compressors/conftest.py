"""Clips with known structure, and each method's graph, traced once a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevtc.methods import budget_for, method_spec

#: T, N, D of the embedded model, and of LLaVA-OneVision 0.5B and 7B.
EMBEDDED, ONEVISION, ONEVISION_7B = (16, 36, 192), (32, 196, 896), (32, 196, 3584)

RETENTION = 0.15


@dataclass(frozen=True)
class Graph:
    """A traced method: its program, the graph as IR and as a file, its sizes."""

    compressor: Any
    model: Any
    path: Path
    shapes: dict[str, tuple[int, ...]]


def clip(shape: tuple[int, int, int], kind: str = "scenes", seed: int = 0) -> dict[str, np.ndarray]:
    """Every feature a method may need, float32.

    Kinds: `scenes` (cuts, a static share, noise), `noise`, `identical` (frames), `zero` (tokens),
    `flat` (constant saliency), `damaged` (tokens with NaN, Inf, huge values), `still` (all tokens are nearly equal).
    """
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


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., dict[str, np.ndarray]]:
    """:func:`clip`."""
    return clip


@pytest.fixture(scope="session")
def graph_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[int, int, int]], Graph]:
    """Method name and sizes T, N, D → its graph."""
    import onnx_ir as ir

    from edgevtc.compressors import create
    from edgevtc.exporter.vision import export_compressor

    @cache
    def trace(method: str, shape: tuple[int, int, int]) -> Graph:
        frames, size, _ = shape
        budget = frames * size if method == "none" else budget_for(RETENTION, frames, size)
        compressor = create(method, frames, size, budget, retention_ratio=RETENTION).eval()
        shapes = {name: clip(shape)[name].shape for name in method_spec(method).needs}
        model = export_compressor(compressor, shapes)
        path = tmp_path_factory.mktemp(method) / "compressor.onnx"
        ir.save(model, path)
        return Graph(compressor, model, path, shapes)

    return trace


@pytest.fixture(scope="session")
def sizes() -> dict[str, tuple[int, int, int]]:
    """Name → T, N, D."""
    return {"embedded": EMBEDDED, "onevision": ONEVISION, "onevision-7b": ONEVISION_7B}
