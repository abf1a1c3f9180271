"""What the tests of exporting share: a tiny checkpoint, and tracing that is done once for all of them."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from tiny_checkpoint import build_model, write_checkpoint, write_texts

from edgevtc.exporter import vision_parts


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A random LLaVA-OneVision in three safetensors files."""
    return write_texts(write_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", build_model(), shards=3))


@pytest.fixture(scope="session")
def headless_folder(tmp_path_factory):
    """One without a pooling head, as published checkpoints are."""
    return write_texts(write_checkpoint(tmp_path_factory.mktemp("headless") / "checkpoint", build_model(head=False)))


@pytest.fixture(scope="session")
def traces() -> dict[tuple, bytes]:
    """Graphs of the tiny checkpoint that were traced already."""
    return {}


@pytest.fixture
def traced_once(traces, monkeypatch):
    """Let exports of the tiny checkpoint reuse the graphs of earlier ones: tracing is nearly all of their time."""

    def reuse(name, key):
        function = getattr(vision_parts, name)

        def traced(*arguments):
            place = (name, *key(*arguments))
            if place not in traces:
                traces[place] = ir.to_proto(function(*arguments)).SerializeToString()
            return ir.from_proto(onnx.ModelProto.FromString(traces[place]))

        monkeypatch.setattr(vision_parts, name, traced)

    reuse("export_encoder", lambda vision, frames_per_call: (vision.outputs, frames_per_call))
    reuse("export_compressor", lambda compressor, shapes: (compressor.spec.name, compressor.budget))
