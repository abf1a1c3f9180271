"""Every method builds as a TensorRT-RTX engine; no GPU is needed for that, only for running it."""

import pytest
from engine_builder import CAPABILITIES, build_engine

from edgevtc.methods import builtin_methods

pytestmark = pytest.mark.export

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is an optional extra")


@pytest.mark.parametrize("method", sorted(builtin_methods()))
def test_builds(method, graph_of, sizes):
    size, reason = build_engine(graph_of(method, sizes["embedded"]).path, CAPABILITIES)
    assert reason == ""
    assert size > 1000
