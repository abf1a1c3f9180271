"""Each method's graph, traced once a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import clip

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


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., dict[str, np.ndarray]]:
    """`clips.clip`."""
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
