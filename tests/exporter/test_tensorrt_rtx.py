"""TensorRT-RTX builds the traced graphs, and refuses what the graph contract refuses. No GPU is needed to build."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from engine_builder import CAPABILITIES, build_engine
from tiny_checkpoint import build_model, write_checkpoint

from edgevtc.bundle import Bundle, FolderWriter, embedded_path
from edgevtc.compressors import create
from edgevtc.exporter.store import read_graph, write_graph
from edgevtc.exporter.vision import export_compressor, export_encoder, export_fused, fuse
from edgevtc.models import Vision, open_model

pytestmark = pytest.mark.export

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is an optional extra")

T, N, B = 16, 36, 86


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Vision:
    """A vision part of the embedded model's sizes."""
    model = build_model(image_size=96, patch_size=8, vision_hidden=128, vision_layers=4, hidden=192)
    vision = open_model(write_checkpoint(tmp_path_factory.mktemp("rtx") / "model", model)).vision()
    assert vision.geometry.tokens_per_frame == N
    return vision


@pytest.mark.parametrize("kind", ["encoder", "fused", "compressor"])
def test_traced_graphs_build(vision: Vision, tmp_path: Path, kind: str) -> None:
    uniform = create("uniform", T, N, B)
    if kind == "encoder":
        model = export_encoder(vision, 4)
    elif kind == "fused":
        model = export_fused(vision, uniform, frames_per_slice=8)
    else:
        model = export_compressor(uniform, vision.feature_shapes(T))
    ir.save(model, tmp_path / "model.onnx")
    size, reason = build_engine(tmp_path / "model.onnx", CAPABILITIES)
    assert reason == ""
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    assert size > weights / 2


@pytest.fixture(scope="module")
def clip_encoder() -> ir.Model:
    """The embedded model's encoder of a whole clip."""
    vision = open_model(embedded_path().parent / "checkpoint").vision(("frame_tokens", "saliency", "frame_features"))
    return export_encoder(vision, T)


@pytest.mark.parametrize("method", ["none", "uniform", "infomerge", "holitom"])
def test_the_embedded_bundles_compressors_build_behind_its_encoder(
    clip_encoder: ir.Model, tmp_path: Path, method: str
) -> None:
    bundle = Bundle()
    entry = bundle.manifest.method(method, None if method == "none" else B)
    fused = fuse(clip_encoder, read_graph(bundle.path, entry.compressor))
    write_graph(FolderWriter(tmp_path), "fused.onnx", fused)
    size, reason = build_engine(tmp_path / "fused.onnx", CAPABILITIES, tmp_path)
    assert reason == ""
    assert size > 1_000_000  # the tower's weights are in it


@pytest.mark.parametrize(
    ("interface", "nodes"),
    [
        ("float[2,4] x) => (int64[2,M] z", "z = NonZero(x)"),
        ("float[2,4] x, bool[4] b) => (float[M] z", "z = Compress(x, b)"),
        ("float[8] x) => (float[M] z", "z = Unique(x)"),
        ("float[2,4] x, int64[2,4] i) => (float[2,4] z", 'z = ScatterElements<axis = 1, reduction = "add">(x, i, x)'),
        ("float[1,4] x, int64[2,4] i, float[2,4] u) => (float[1,4] z", "z = ScatterElements<axis = 1>(x, i, u)"),
        ("float[8] x) => (int64 z", "z = ArgMax<keepdims = 0>(x)"),
        ("uint8[2,4] x) => (float[4,2] z", "t = Transpose<perm = [1, 0]>(x) z = Cast<to = 1>(t)"),
        ("float[2,4] x) => (float[2,4] z", "u = Cast<to = 2>(x) z = Cast<to = 1>(u)"),
    ],
    ids=["NonZero", "Compress", "Unique", "scatter reduction", "scatter size", "ArgMax rank", "uint8 op", "to uint8"],
)
def test_what_the_contract_bans_does_not_build(tmp_path: Path, interface: str, nodes: str) -> None:
    text = f'<ir_version: 10, opset_import: ["": 20]> bad ({interface}) {{ {nodes} }}'
    ir.save(ir.from_onnx_text(text), tmp_path / "bad.onnx")
    size, reason = build_engine(tmp_path / "bad.onnx", CAPABILITIES)
    assert size is None
    assert reason


@pytest.mark.parametrize(
    ("interface", "nodes"),
    [
        ("float[2,4] x, int64[2,4] i) => (float[2,4] z", "z = ScatterElements<axis = 1>(x, i, x)"),
        ("float[2,4] x) => (int64[2] z", "z = ArgMax<axis = 1, keepdims = 0>(x)"),
        ("uint8[2,4] x) => (float[4,2] z", "f = Cast<to = 1>(x) z = Transpose<perm = [1, 0]>(f)"),
    ],
    ids=["scatter", "ArgMax", "uint8"],
)
def test_what_the_contract_allows_builds(tmp_path: Path, interface: str, nodes: str) -> None:
    text = f'<ir_version: 10, opset_import: ["": 20]> good ({interface}) {{ {nodes} }}'
    ir.save(ir.from_onnx_text(text), tmp_path / "good.onnx")
    assert build_engine(tmp_path / "good.onnx", CAPABILITIES)[1] == ""


@pytest.mark.parametrize(("k", "builds"), [(3840, True), (3841, False)])
def test_largest_topk(tmp_path: Path, k: int, builds: bool) -> None:
    text = (
        f'<ir_version: 10, opset_import: ["": 20]> top (float[1,6272] x) => (float[1,{k}] z, int64[1,{k}] i)'
        f"{{ k = Constant<value = int64[1] {{{k}}}>() z, i = TopK(x, k) }}"
    )
    ir.save(ir.from_onnx_text(text), tmp_path / "topk.onnx")
    size, _ = build_engine(tmp_path / "topk.onnx", CAPABILITIES)
    assert (size is not None) == builds
