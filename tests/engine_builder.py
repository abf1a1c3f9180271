"""The builder of scripts/compressor_costs.py, for tests: one way to compile a graph for TensorRT-RTX."""

import importlib.util
from pathlib import Path

CAPABILITIES = [89, 120]  # RTX 40 and RTX 50

_spec = importlib.util.spec_from_file_location(
    "compressor_costs", Path(__file__).parents[1] / "scripts" / "compressor_costs.py"
)
assert _spec is not None and _spec.loader is not None
_script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_script)

build_engine = _script.build_engine
