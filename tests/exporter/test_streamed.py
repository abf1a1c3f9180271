"""A decoder run a layer at a time computes what the whole one does, and holds no more than a layer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from tiny_export import TINY_OPTIONS

from edgevtc.backends import create_backend
from edgevtc.backends.onnxruntime import OnnxRuntimeBackend
from edgevtc.decoder.generator import Generator
from edgevtc.decoder.prompt import Rows
from edgevtc.errors import BackendError
from edgevtc.exporter.decoder import WEIGHT_FORMATS
from edgevtc.exporter.export import export_bundle
from edgevtc.exporter.streamed import StreamedBackend, cut

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def bundle(tiny_folder, tmp_path_factory):
    options = {**vars(TINY_OPTIONS), "weight_formats": tuple(WEIGHT_FORMATS), "fused": False}
    return export_bundle(tiny_folder, tmp_path_factory.mktemp("streamed") / "bundle", type(TINY_OPTIONS)(**options))


def logits(backend, bundle, weight_format):
    """Of a prompt, and of two tokens after it, which find the cache as the prompt left it."""
    entry = bundle.manifest.decoder
    session = backend.load(bundle.path, bundle.file(entry.graphs[weight_format]))
    generator = Generator(backend, session, entry, bundle.tensor(entry.embeddings))
    embeddings = np.random.default_rng(0).normal(size=(9, entry.hidden_size)).astype(np.float32)
    found = []
    for length in (7, 8, 9):
        rows = Rows(list(range(length)), embeddings[:length], np.arange(length) * 2, 2 * length)
        found.append(generator.prefill(rows, 4)[0])
    return found


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
def test_every_bit_is_the_whole_decoders(bundle, weight_format):
    streamed = logits(StreamedBackend(threads=1), bundle, weight_format)
    assert np.array_equal(streamed, logits(create_backend("cpu", 1), bundle, weight_format))
    assert not np.array_equal(streamed[0], streamed[1])


def test_one_layer_is_loaded_at_a_time_and_the_whole_is_only_mapped(bundle, monkeypatch):
    loads, load = [], OnnxRuntimeBackend.load

    def noted(self, root, graph, *, prepack=True):
        loads.append((graph.name, prepack))
        return load(self, root, graph, prepack=prepack)

    monkeypatch.setattr(OnnxRuntimeBackend, "load", noted)
    logits(StreamedBackend(threads=1), bundle, "w8a8")
    pieces = [(f"w8a8-{index}-{name}", True) for index, name in enumerate(("layers.0", "layers.1", "rest"))]
    assert loads == [("w8a8.onnx", False), *3 * pieces]


def test_pieces_share_the_weights_out(bundle):
    graph = onnx.ModelProto.FromString(bundle.file("decoder/w8a8.onnx").read_bytes())
    pieces = cut(graph)
    assert sum(len(piece.graph.node) for piece in pieces) == len(graph.graph.node)
    weights = [weight.name for piece in pieces for weight in piece.graph.initializer if ".weight." in weight.name]
    assert len(weights) == len(set(weights)) and len(weights) == 2 * (4 * 2 + 1)


def test_a_vision_graph_is_loaded_whole(bundle):
    whole, streamed = create_backend("cpu", 1), StreamedBackend(threads=1)
    assert type(streamed.load(bundle.path, bundle.file("encoder.onnx"))) is type(
        whole.load(bundle.path, bundle.file("encoder.onnx"))
    )


def test_a_decoder_that_does_not_load_is_refused(bundle, tmp_path):
    graph = onnx.ModelProto.FromString(bundle.file("decoder/w8a8.onnx").read_bytes())
    graph.graph.node[-1].op_type = "Unheard"
    (tmp_path / "w8a8.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(BackendError, match=r"cannot load w8a8\.onnx on cpu: .*Unheard"):
        StreamedBackend(threads=1).load(bundle.path, tmp_path / "w8a8.onnx")
