"""How the tiny checkpoint is exported in tests."""

from __future__ import annotations

from edgevtc.exporter.export import ExportOptions

#: Fits a checkpoint without SigLIP's pooling head, and is small enough to be exported many times.
TINY_OPTIONS = ExportOptions(
    methods=("uniform",), retention_ratios=(0.5,), num_frames=2, frames_per_call=2, weight_formats=("fp32", "w8a8")
)
