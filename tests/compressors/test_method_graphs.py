"""Every method's graph: within the contract, equal to its program, and built as a TensorRT-RTX engine without a GPU."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from clips import KINDS
from engine_builder import CAPABILITIES, build_engine

from edgevtc.exporter.contract import check_graph
from edgevtc.methods import builtin_methods

pytestmark = pytest.mark.export

METHODS = sorted(builtin_methods())

#: Size → methods whose graphs are run at it. Tracing takes seconds, so at 896 channels only one of each family: even,
#: windowed, segmented, merged in a frame. With --every-size it is all of them.
METHODS_AT = {
    "embedded": METHODS,
    "onevision": ["uniform", "holitom", "infomerge", "visionzip"],
    "onevision-7b": ["holitom", "infomerge"],
}


def pytest_generate_tests(metafunc):
    if "size" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-size")
        cases = [(method, size) for size, some in METHODS_AT.items() for method in (METHODS if every else some)]
        metafunc.parametrize(("method", "size"), cases)


def test_graph_equals_program(method, size, graph_of, sizes, make_clip):
    graph = graph_of(method, sizes[size])
    assert check_graph(graph.model, "compressor") == []
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph.path, options, providers=["CPUExecutionProvider"])
    for kind in KINDS if size == "embedded" else ["scenes"]:
        features = make_clip(sizes[size], kind)
        tokens, *decisions = session.run(None, {name: features[name] for name in graph.compressor.spec.needs})
        with torch.no_grad():
            needed = [torch.from_numpy(features[name]) for name in graph.compressor.spec.needs]
            expected_tokens, *expected = graph.compressor(*needed)
        for ours, theirs in zip(decisions, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs.numpy(), err_msg=kind)
        np.testing.assert_allclose(tokens, expected_tokens.numpy(), rtol=0, atol=1e-5, err_msg=kind)


@pytest.mark.parametrize("method", METHODS)
def test_builds(method, graph_of, sizes):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is an optional extra")
    size, reason = build_engine(graph_of(method, sizes["embedded"]).path, CAPABILITIES)
    assert reason == ""
    assert size > 1000
