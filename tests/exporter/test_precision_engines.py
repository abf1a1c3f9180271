"""TensorRT-RTX builds the graphs in half precision and with int8 products. No GPU is needed to build."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from engine_builder import CAPABILITIES, build_engine

from edgevtc.bundle import Bundle
from edgevtc.exporter.calibrate import calibration_frames, largest_activations
from edgevtc.exporter.precision import to_float16
from edgevtc.exporter.quantize_encoder import quantize_encoder
from edgevtc.exporter.store import read_graph
from edgevtc.exporter.vision import export_encoder, fuse
from edgevtc.models import open_model

pytestmark = pytest.mark.export

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is an optional extra")

BUDGET = 58


@pytest.fixture(scope="module")
def encoders() -> dict[str, ir.Model]:
    """The embedded model's encoder for a whole clip, in every precision."""
    model = open_model(Bundle().path.parent / "checkpoint")
    vision = model.vision()
    plain = export_encoder(vision, 16)
    frames = list(calibration_frames(model, []))[:2]
    quantized = quantize_encoder(plain, largest_activations(vision, frames))
    return {"float16": to_float16(plain), "w8a8": quantized, "w8a8 in float16": to_float16(quantized)}


@pytest.mark.parametrize("precision", ["float16", "w8a8", "w8a8 in float16"])
def test_encoders_build(encoders: dict[str, ir.Model], tmp_path: Path, precision: str) -> None:
    graph = encoders[precision]
    ir.save(graph.clone(), tmp_path / "model.onnx")
    size, reason = build_engine(tmp_path / "model.onnx", CAPABILITIES)
    assert reason == ""
    weights = sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value)
    assert size is not None and size > weights / 2


@pytest.mark.parametrize("method", ["infomerge", "holitom"])
def test_compressors_build_alone_and_fused(encoders: dict[str, ir.Model], tmp_path: Path, method: str) -> None:
    bundle = Bundle()
    compressor = to_float16(read_graph(bundle.path, bundle.manifest.method(method, BUDGET).compressor))
    ir.save(compressor.clone(), tmp_path / "compressor.onnx")
    assert build_engine(tmp_path / "compressor.onnx", CAPABILITIES)[1] == ""
    ir.save(fuse(encoders["float16"], compressor), tmp_path / "fused.onnx")
    size, reason = build_engine(tmp_path / "fused.onnx", CAPABILITIES)
    assert reason == ""
    assert size is not None and size > 1_000_000  # the tower's weights are in it
