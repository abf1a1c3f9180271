"""An export holds itself to torch: what differs is named, and no bundle is written."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from tiny_checkpoint import build_model
from tiny_export import TINY_OPTIONS
from transformers import Qwen2ForCausalLM

from edgevtc.bundle import Bundle, MethodEntry
from edgevtc.compressors import create
from edgevtc.compressors.baselines import Uniform
from edgevtc.decoder.prompt import Rows
from edgevtc.errors import ExportError, VideoError
from edgevtc.exporter import decoder_parts, vision_parts
from edgevtc.exporter.export import export_bundle
from edgevtc.exporter.reference import ReferenceDecoder
from edgevtc.exporter.verify import TorchReference, encode, reference_frames
from edgevtc.measure.references import References
from edgevtc.measure.verify import Verifier
from edgevtc.models import open_model

pytestmark = pytest.mark.export


def test_an_export_carries_its_proof(tiny_folder, traced_once, tmp_path):
    steps = []
    bundle = export_bundle(tiny_folder, tmp_path / "out", TINY_OPTIONS, progress=steps.append)
    entry = bundle.manifest.verification
    graphs = [name for name in bundle.manifest.files if name.endswith(".onnx")]
    assert sorted(entry.differences) == sorted(graphs) and len(graphs) == 5
    assert {f"verifying {graph}" for graph in graphs} <= set(steps)
    assert entry.differences["encoder.onnx"] < 1e-5 < entry.differences["decoder/w8a8.onnx"]
    assert entry.answer_margin > 0 and entry.question == "what happens in the video"
    assert all(check.status == "PASSED" for check in Verifier(Bundle(bundle.path), threads=1).run())
    assert References.read(bundle.file(entry.references)).frames.shape == (2, 32, 32, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def wrong_addition(monkeypatch):
    original = vision_parts.export_encoder

    def traced(*arguments):
        model = original(*arguments)
        node = next(node for node in reversed(list(model.graph)) if node.op_type == "Add")
        node.op_type = "Sub"
        return model

    monkeypatch.setattr(vision_parts, "export_encoder", traced)


def wrong_positions(monkeypatch):
    original = vision_parts.export_compressor

    def traced(*arguments):
        model = original(*arguments)
        # Under whichever name: the constant that holds the kept positions, and is the index of what is gathered.
        value = next(v for v in model.graph.initializers.values() if v.const_value.numpy().tolist() == KEPT)
        value.const_value = ir.tensor(np.array([0, *KEPT[1:]], value.const_value.numpy().dtype), name=value.name)
        return model

    monkeypatch.setattr(vision_parts, "export_compressor", traced)


def wrong_weight(monkeypatch):
    original = decoder_parts.build_decoder

    def declared(config, weights, weight_format):
        changed = {name: weights[name] for name in weights}
        changed["layers.1.mlp.down_proj.weight"] = changed["layers.1.mlp.down_proj.weight"] * np.float32(1.01)
        return original(config, changed, weight_format)

    monkeypatch.setattr(decoder_parts, "build_decoder", declared)


KEPT = create("uniform", 2, 4, 4, grid_width=2).positions.tolist()


@pytest.mark.parametrize(
    ("sabotage", "named"),
    [
        (wrong_addition, ["encoder.onnx: frame_tokens differ by", "vision/uniform-b4.onnx: tokens differ"]),
        (wrong_positions, ["compressors/uniform-b4.onnx: ", "vision/uniform-b4.onnx: "]),
        (wrong_weight, ["decoder/fp32.onnx: logits differ by"]),
    ],
)
def test_what_differs_from_torch_is_named_and_not_written(
    tiny_folder, traced_once, tmp_path, monkeypatch, sabotage, named
):
    sabotage(monkeypatch)
    with pytest.raises(ExportError, match="FAILED, so no bundle was written") as raised:
        export_bundle(tiny_folder, tmp_path / "out", TINY_OPTIONS)
    assert all(words in str(raised.value) for words in named)
    assert not any(tmp_path.iterdir())


def test_a_method_that_keeps_one_token_again_and_again_is_refused(tiny_folder, tmp_path, monkeypatch):
    original = Uniform.plan

    def again(compressor, features):
        plan = original(compressor, features)
        return replace(plan, positions=plan.positions * 0)

    monkeypatch.setattr(Uniform, "plan", again)
    with pytest.raises(ExportError, match=r"compressors/uniform.*two slots stand for one token"):
        export_bundle(tiny_folder, tmp_path / "out", TINY_OPTIONS)
    assert not list(tmp_path.iterdir())


def test_an_answer_torch_would_not_give_is_refused(tiny_folder, traced_once, tmp_path, monkeypatch):
    monkeypatch.setattr("edgevtc.exporter.verify.greedy_answer", lambda *arguments: ([5, 5, 5], "w5 w5 w5"))
    with pytest.raises(ExportError, match="torch would not answer 'w5 w5 w5'"):
        export_bundle(tiny_folder, tmp_path / "out", TINY_OPTIONS)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("tie", [True, False])
def test_the_reference_decoder_is_transformers(tie):
    model = build_model(tie=tie)
    config = model.config.text_config.to_dict() | {"tie_word_embeddings": tie}
    whole = Qwen2ForCausalLM(type(model.config.text_config)(**config)).eval()
    whole.model.load_state_dict(model.model.language_model.state_dict())
    whole.lm_head.load_state_dict(model.lm_head.state_dict())
    weights = {name.removeprefix("model."): value.numpy() for name, value in whole.state_dict().items()}
    rng = np.random.default_rng(0)
    positions = np.array([0, 1, 5, 9, 10, 11])
    rows = Rows([], rng.normal(size=(6, 32)).astype(np.float32), positions, 12)
    with torch.no_grad():
        expected = whole(
            inputs_embeds=torch.from_numpy(rows.embeddings)[None],
            position_ids=torch.from_numpy(positions)[None],
            attention_mask=torch.ones(1, 6, dtype=torch.long),
        ).logits[0]
    found = ReferenceDecoder(config, weights).logits(rows, last=3)
    assert np.abs(found - expected[-3:].numpy()).max() <= 1e-4 * expected.abs().max()


def test_the_answer_margin_is_torchs_lead(tiny_folder):
    model = open_model(tiny_folder)
    frames, _ = reference_frames(model, 2, None)
    compressor = create("uniform", 2, 4, 4, grid_width=2)
    features = encode(model.vision(("frame_tokens",)), frames)
    reference = TorchReference.compute(model, features, [compressor], frames, [1, 3, 7, 2])
    method = MethodEntry("uniform", 4, 0.5, ("frame_tokens",), "original", {}, "compressor")
    leads = [reference.answer_margin(method, [token] * 8, {39}) for token in range(39)]
    # Eight times the same token is hardly what torch would say, so every lead is negative, and none is like another.
    assert max(leads) < 0 and len(set(leads)) > 30
    first = [reference.answer_margin(method, [token], {39}) for token in range(39)]
    assert max(first) <= 1


def test_frames_come_from_a_clip_or_a_scene(tiny_folder, samples, tmp_path):
    model = open_model(tiny_folder)
    scene, source = reference_frames(model, 5, None)
    assert scene.shape == (5, 32, 32, 3) and scene.dtype == np.uint8 and "synthetic world" in source
    assert np.array_equal(scene, reference_frames(model, 5, None)[0])
    assert all(np.abs(a.astype(int) - b).max() > 30 for a, b in itertools.pairwise(scene))
    clip, source = reference_frames(model, 5, samples / "yard.mp4")
    assert clip.shape == scene.shape and source == "yard.mp4"
    with pytest.raises(VideoError):
        reference_frames(model, 5, tmp_path / "missing.mp4")


def test_a_clip_that_cannot_be_read_stops_the_export_before_it_starts(tiny_folder, tmp_path):
    with pytest.raises(VideoError):
        export_bundle(tiny_folder, tmp_path / "out", replace(TINY_OPTIONS, clip=tmp_path / "missing.mp4"))
    assert not any(tmp_path.iterdir())
