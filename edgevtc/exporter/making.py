"""An export under way: what the makers of its parts share."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

from edgevtc import __version__
from edgevtc.bundle import BundleWriter
from edgevtc.exporter.fingerprint import folder_sha256, package_sha256
from edgevtc.exporter.parts import Parts
from edgevtc.exporter.prepare import Prepared
from edgevtc.exporter.progress import Progress

__all__ = ["Making", "producer"]

#: Distributions whose versions a manifest records.
PRODUCERS = ("torch", "transformers", "onnx", "onnxscript", "onnx-ir")


@dataclass(frozen=True)
class Making:
    """An export under way.

    Attributes:
        prepared: What is made.
        writer: Of the bundle.
        parts: Of this export.
        graphs: Compressors' graphs, which no weights are in: the same parts, or a cache that other exports share.
        jobs: Processes that trace compressors.
        progress: Called with the name of each step as it begins, and told of each part that is done.
    """

    prepared: Prepared
    writer: BundleWriter
    parts: Parts
    graphs: Parts
    jobs: int
    progress: Progress

    @cached_property
    def source(self) -> Mapping[str, Any]:
        """What every part with weights in it depends on."""
        checkpoint = folder_sha256(self.prepared.checkpoint)
        return {"versions": producer(), "code": package_sha256(), "checkpoint": checkpoint}


def producer() -> dict[str, str]:
    """Versions of what makes a bundle."""
    return {
        "edgevtc": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PRODUCERS},
    }
