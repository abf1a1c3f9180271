"""Every method builds as a TensorRT-RTX engine; no GPU is needed for that, only for running it."""

from pathlib import Path
from types import ModuleType

import pytest

from edgevtc.methods import builtin_methods

pytestmark = pytest.mark.export

trt = pytest.importorskip("tensorrt_rtx")


def build(trt: ModuleType, path: Path, capability: str) -> bytes:
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(path.read_bytes())
    assert parsed, "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, f"no engine for {capability}"
    return bytes(engine)


@pytest.mark.parametrize("capability", ["SM89", "SM120"])
@pytest.mark.parametrize("method", sorted(builtin_methods()))
def test_builds(method, capability, graph_of, sizes):
    assert len(build(trt, graph_of(method, sizes["embedded"]).path, capability)) > 1000
