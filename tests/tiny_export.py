"""How the tiny checkpoint is exported in tests."""

from __future__ import annotations

from dataclasses import replace

from edgevtc.exporter.options import ExportOptions

#: Fits a checkpoint without SigLIP's pooling head, and is small enough to be exported many times.
TINY_OPTIONS = ExportOptions(
    methods=("uniform",), retention_ratios=(0.5,), num_frames=2, frames_per_call=2, weight_formats=("fp32", "w8a8")
)

#: Of what an export writes, one of each.
SHORTEST_OPTIONS = replace(TINY_OPTIONS, weight_formats=("w8a8",), fused=False)
