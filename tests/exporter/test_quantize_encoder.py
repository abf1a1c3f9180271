"""The int8 encoder: its form, its scales, and that a wrong one is found."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from measure_bundle import sign
from tiny_checkpoint import random_frames
from tiny_export import TINY_OPTIONS

from edgevtc import Runner
from edgevtc.backends import create_backend
from edgevtc.bundle import Bundle, embedded_path
from edgevtc.errors import ConfigError, ExportError
from edgevtc.exporter import quantize_encoder as quantizing
from edgevtc.exporter import vision_parts
from edgevtc.exporter.calibrate import calibration_clips, calibration_frames, largest_activations
from edgevtc.exporter.contract import require_contract
from edgevtc.exporter.export import export_bundle
from edgevtc.exporter.precision import to_float16
from edgevtc.exporter.quantize_encoder import quantizable, quantize_encoder
from edgevtc.exporter.store import read_graph
from edgevtc.exporter.vision import export_encoder
from edgevtc.measure.compare import difference
from edgevtc.measure.verify import Verifier
from edgevtc.models import open_model

pytestmark = pytest.mark.export

OPTIONS = replace(TINY_OPTIONS, encoder_format="w8a8", weight_formats=("fp32",))


@pytest.fixture(scope="module")
def vision(tiny_folder):
    return open_model(tiny_folder).vision(saliency="siglip_last_mean", frame_features="mean")


@pytest.fixture(scope="module")
def frames():
    return random_frames(2, 32)


def tokens_of(graph, frames, folder):
    ir.save(graph.clone(), folder / "graph.onnx")
    backend = create_backend("cpu", 1)
    session = backend.load(folder, folder / "graph.onnx")
    session.bind("frames", backend.tensor(frames.numpy()))
    session.run()
    return session.output("frame_tokens").numpy()


def test_every_product_of_the_tokens_but_the_first_is_int8(vision, frames, tmp_path):
    traced = export_encoder(vision, 2)
    largest = largest_activations(vision, frames.numpy())
    graph = quantize_encoder(traced, largest)
    require_contract(graph, "encoder")
    names = [name for name, _ in quantizable(traced.graph)]
    assert len(names) == 2 * 4 + 2 and not any("patch_embedding" in name or "head" in name for name in names)
    codes = {v.name: v for v in graph.graph.initializers.values() if v.dtype == ir.DataType.INT8}
    for name in names:
        values = codes[f"{name}.codes"].const_value.numpy()
        assert (np.abs(values).max(0) == 64).all()  # each output channel uses its range, and no more
        assert f"{name}" not in graph.graph.initializers
    with torch.no_grad():
        expected = vision(frames)[0].numpy()
    apart = difference(tokens_of(graph, frames, tmp_path), expected)
    assert apart.cosine > 0.999 and apart.worst > 1e-3
    half = to_float16(graph)
    require_contract(half, "encoder")
    assert difference(tokens_of(half, frames, tmp_path), expected).cosine > 0.999


def test_smoothing_tames_channels_that_are_much_larger(tiny_folder, frames, tmp_path, monkeypatch):
    vision = open_model(tiny_folder).vision(("frame_tokens",))
    for layer in vision.tower.layers:  # the same function, with three channels 100 times as large before the product
        for norm, dense in ((layer.norm1, layer.attention.qkv), (layer.norm2, layer.mlp.fc1)):
            norm.weight[:3] *= 100
            norm.bias[:3] *= 100
            dense.weight[:3] /= 100
    with torch.no_grad():
        expected = vision(frames)[0].numpy()
    traced, largest = export_encoder(vision, 2), largest_activations(vision, frames.numpy())
    smoothed = difference(tokens_of(quantize_encoder(traced, largest), frames, tmp_path), expected)
    monkeypatch.setattr(quantizing, "_smoothing", lambda *_: None)
    rough = difference(tokens_of(quantize_encoder(traced, largest), frames, tmp_path), expected)
    assert smoothed.cosine > 0.999 > rough.cosine


def test_calibration_finds_the_largest_magnitude_of_each_channel(vision, frames):
    seen = []
    layer = vision.get_submodule("tower.layers.1.mlp.fc2")
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    largest = largest_activations(vision, frames.numpy())
    handle.remove()
    expected = torch.cat(seen).abs().amax((0, 1)).numpy()
    assert np.array_equal(largest["vision.tower.layers.1.mlp.fc2.weight"], expected)
    assert not layer._forward_pre_hooks


def test_clips_to_calibrate_on(tiny_folder, samples, tmp_path):
    assert calibration_clips(tiny_folder, [samples]) == sorted(samples.glob("*.mp4"))
    assert calibration_clips(embedded_path().parent / "checkpoint", []) == []
    model = open_model(tiny_folder)
    found = list(calibration_frames(model, [samples / "yard.mp4", samples / "gate.mp4"]))
    assert len(found) == 64 and found[0].shape == (32, 32, 3)
    with pytest.raises(ConfigError, match="--calibrate"):
        calibration_clips(tiny_folder, [])
    with pytest.raises(ConfigError, match=r"gone\.mp4 does not exist"):
        calibration_clips(tiny_folder, [tmp_path / "gone.mp4"])
    with pytest.raises(ConfigError, match="holds no video"):
        calibration_clips(tiny_folder, [tmp_path])


@pytest.fixture(scope="module")
def bundle(tiny_folder, samples, tmp_path_factory):
    options = replace(OPTIONS, calibrate=(samples / "yard.mp4",))
    return export_bundle(tiny_folder, tmp_path_factory.mktemp("w8a8") / "bundle", options)


def test_an_int8_bundle_is_verified_and_answers(bundle, samples):
    vision = bundle.manifest.vision
    assert (vision.weight_format, vision.compute_dtype, vision.calibration) == ("w8a8", "float32", ("yard.mp4",))
    checks = list(Verifier(Bundle(bundle.path), threads=1).run())
    assert [check.status for check in checks] == ["PASSED"] * len(checks)
    assert isinstance(Runner(bundle.path).open(samples / "gate.mp4").ask("w5 w6").answer, str)


def test_a_wrong_scale_is_found_on_the_device(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "copy"
    shutil.copytree(bundle.path, folder)
    graph = read_graph(folder, "encoder.onnx")
    scale = graph.graph.initializers["vision.tower.layers.0.mlp.fc1.weight.input_scale"]
    old = scale.const_value.numpy().tobytes()
    content = (folder / "encoder.onnx").read_bytes()
    assert old in content
    (folder / "encoder.onnx").write_bytes(content.replace(old, (np.frombuffer(old, np.float32) / 20).tobytes()))
    sign(folder)
    failed = {check.part for check in Verifier(Bundle(folder), threads=1).run() if check.passed is False}
    assert "encoder.onnx" in failed


def test_a_wrong_scale_is_found_by_the_export(tiny_folder, samples, traced_once, tmp_path, monkeypatch):
    def damaged(model, largest):
        return quantize_encoder(model, {name: value / 20 for name, value in largest.items()})

    monkeypatch.setattr(vision_parts, "quantize_encoder", damaged)
    options = replace(OPTIONS, calibrate=(samples / "yard.mp4",))
    with pytest.raises(ExportError, match=r"encoder\.onnx: frame_tokens"):
        export_bundle(tiny_folder, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
