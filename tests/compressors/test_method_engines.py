"""Every method builds as a TensorRT-RTX engine; no GPU is needed for that, only for running it."""

import pytest

from edgevtc.methods import builtin_methods

pytestmark = pytest.mark.export

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is an optional extra")

CAPABILITIES = [trt.ComputeCapability.SM89, trt.ComputeCapability.SM120]  # RTX 40 and RTX 50


@pytest.mark.parametrize("method", sorted(builtin_methods()))
def test_builds(method, graph_of, sizes):
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(graph_of(method, sizes["embedded"]).path.read_bytes())
    assert parsed, "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(CAPABILITIES)
    for index, capability in enumerate(CAPABILITIES):
        config.set_compute_capability(capability, index)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None and engine.nbytes > 1000
