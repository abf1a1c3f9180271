"""EdgeVTC: video token compression inside the graphs that run a Video-LLM on edge devices."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgevtc.runner import Answer, Runner, VideoSession

__all__ = ["Answer", "Runner", "VideoSession", "__version__"]
__version__ = "0.1.0"

# ONNX Runtime's wheels report home unless told not to, and read this when they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_RUNNER_NAMES = {"Answer", "Runner", "VideoSession"}


def __getattr__(name: str) -> Any:
    # Lazy: `edgevtc --help` and the torch-free checks must not pay for what they do not use.
    if name in _RUNNER_NAMES:
        from edgevtc import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'edgevtc' has no attribute {name!r}")
