"""What a method costs, as measured; the figures are written by scripts/compressor_costs.py."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["COST_SIZE", "method_cost"]

#: T×N×D at which costs are compared.
COST_SIZE = "32x196x896"


@cache
def _figures() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(files("edgevtc.methods").joinpath("costs.json").read_text(encoding="utf-8"))
    return figures


def method_cost(name: str) -> dict[str, float] | None:
    """Figures of a built-in method at :data:`COST_SIZE`, retention ratio 0.15; None for another package's method.

    Keys: `gmac` 10⁹ multiply-accumulates of matrix products; `cpu_s` processor seconds in ONNX Runtime on one thread
    of the machine named in docs/compressors.md; `encoder_share` that time in relation to the encoder's there;
    `peak_mb` memory of the process that ran it, in 10⁶ bytes; `nodes` of the graph.
    """
    figures = _figures()
    measured = figures["methods"].get(name, {}).get(COST_SIZE)
    if measured is None:
        return None
    encoder_s = figures["encoder_s_per_frame"] * int(COST_SIZE.split("x")[0])
    chosen = {key: measured[key] for key in ("gmac", "cpu_s", "peak_mb", "nodes")}
    return chosen | {"encoder_share": measured["cpu_s"] / encoder_s}
