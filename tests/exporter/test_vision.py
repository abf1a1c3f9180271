"""The traced graphs compute what the torch modules compute, and share their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from tiny_checkpoint import build_model, random_frames, write_checkpoint

from edgevtc.compressors import Compressor, Features, Plan, create
from edgevtc.compressors.blocks.segments import segments_from_cuts
from edgevtc.errors import ExportError
from edgevtc.exporter.contract import check_graph
from edgevtc.exporter.vision import export_compressor, export_encoder, export_fused
from edgevtc.methods import MethodSpec
from edgevtc.models import Vision, open_model

pytestmark = pytest.mark.export

T, N, B = 6, 4, 7


class MostSalient(Compressor):
    """Keeps the B tokens of highest saliency: a plan that depends on the data, in few nodes."""

    spec = MethodSpec("most-salient", "for tests", needs=("frame_tokens", "saliency"))

    def plan(self, features: Features) -> Plan:
        assert features.saliency is not None
        positions = features.saliency.reshape(-1).topk(self.budget).indices.sort().values.int()
        slots = torch.arange(self.budget, dtype=torch.int32) + 1
        hit = positions == torch.arange(T * N, dtype=torch.int32)[:, None]
        return Plan(positions, (hit * slots).sum(1, dtype=torch.int32).reshape(T, N) - 1)

    def apply(self, plan: Plan, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return x.reshape(-1, x.shape[-1])[plan.positions.long()]


class MostSalientInSegments(MostSalient):
    """Begins a segment wherever the saliency rises."""

    spec = MethodSpec("in-segments", "for tests", needs=("frame_tokens", "saliency"), segments=True)

    def plan(self, features: Features) -> Plan:
        assert features.saliency is not None
        plan, level = super().plan(features), features.saliency.amax(1)
        return Plan(plan.positions, plan.assignment, segments=segments_from_cuts(level[1:] > level[:-1]).number)


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Vision:
    return open_model(write_checkpoint(tmp_path_factory.mktemp("vision") / "model", build_model())).vision()


@pytest.fixture(scope="module")
def encoder(vision: Vision) -> ir.Model:
    return export_encoder(vision, 3)


@pytest.fixture(scope="module")
def fused(vision: Vision) -> ir.Model:
    return export_fused(vision, MostSalient(T, N, B))


def run(model: ir.Model, folder: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ir.save(model, folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, inputs), strict=True))


def interface(model: ir.Model) -> dict[str, tuple[str, list[int]]]:
    values = [*model.graph.inputs, *model.graph.outputs]
    return {value.name: (value.dtype.name, [int(size) for size in value.shape]) for value in values}


def test_encoder_graph(vision: Vision, encoder: ir.Model, tmp_path: Path) -> None:
    assert interface(encoder) == {
        "frames": ("UINT8", [3, 32, 32, 3]),
        "frame_tokens": ("FLOAT", [3, 4, 32]),
        "saliency": ("FLOAT", [3, 4]),
        "frame_features": ("FLOAT", [3, 32]),
    }
    assert check_graph(encoder, "encoder") == []
    frames = random_frames(3, 32)
    given = run(encoder, tmp_path, {"frames": frames.numpy()})
    for name, expected in vision.features(frames).items():
        np.testing.assert_allclose(given[name], expected.numpy(), rtol=0, atol=2e-5, err_msg=name)


def test_streamed_encoder_and_compressor_equal_the_fused_graph(
    vision: Vision, encoder: ir.Model, fused: ir.Model, tmp_path: Path
) -> None:
    standalone = export_compressor(MostSalient(T, N, B), vision.feature_shapes(T))
    assert list(interface(standalone)) == ["frame_tokens", "saliency", *MostSalient(T, N, B).outputs]
    assert check_graph(standalone, "compressor") == []
    assert interface(fused) == {
        "frames": ("UINT8", [T, 32, 32, 3]),
        "tokens": ("FLOAT", [B, 32]),
        "positions": ("INT32", [B]),
        "counts": ("INT32", [B]),
        "assignment": ("INT32", [T, N]),
    }
    assert check_graph(fused, "vision") == []
    frames = random_frames(T, 32)
    parts = [run(encoder, tmp_path, {"frames": part.numpy()}) for part in frames.split(3)]
    features = {name: np.concatenate([part[name] for part in parts]) for name in ("frame_tokens", "saliency")}
    streamed = run(standalone, tmp_path, features)
    whole = run(fused, tmp_path, {"frames": frames.numpy()})
    for name in ("positions", "counts", "assignment"):
        np.testing.assert_array_equal(streamed[name], whole[name], err_msg=name)
    np.testing.assert_allclose(streamed["tokens"], whole["tokens"], rtol=0, atol=2e-5)
    # The plan is the one torch makes.
    expected = MostSalient(T, N, B)(*vision(frames)[:2])
    np.testing.assert_array_equal(whole["positions"], expected[1].numpy())
    np.testing.assert_allclose(whole["tokens"], expected[0].numpy(), rtol=0, atol=2e-5)


def test_segments_are_an_output_of_methods_that_divide_the_clip(
    vision: Vision, encoder: ir.Model, tmp_path: Path
) -> None:
    compressor = MostSalientInSegments(T, N, B)
    standalone, fused = export_compressor(compressor, vision.feature_shapes(T)), export_fused(vision, compressor)
    assert check_graph(standalone, "compressor") == check_graph(fused, "vision") == []
    assert interface(standalone)["segments"] == interface(fused)["segments"] == ("INT32", [T])
    frames = random_frames(T, 32)
    parts = [run(encoder, tmp_path, {"frames": part.numpy()}) for part in frames.split(3)]
    features = {name: np.concatenate([part[name] for part in parts]) for name in ("frame_tokens", "saliency")}
    streamed = run(standalone, tmp_path, features)["segments"]
    level = features["saliency"].max(1)
    np.testing.assert_array_equal(streamed, np.cumsum([0, *(level[1:] > level[:-1])]))
    np.testing.assert_array_equal(run(fused, tmp_path, {"frames": frames.numpy()})["segments"], streamed)
    # With room for every token nothing is decided.
    assert "segments" not in interface(export_compressor(MostSalientInSegments(T, N, T * N), vision.feature_shapes(T)))


def test_slicing_the_tower_changes_the_graph_and_not_the_tokens(
    vision: Vision, fused: ir.Model, tmp_path: Path
) -> None:
    sliced = export_fused(vision, MostSalient(T, N, B), frames_per_slice=4)  # 4 and 2 frames
    assert check_graph(sliced, "vision") == []
    softmaxes = [sum(node.op_type == "Softmax" for node in model.graph) for model in (fused, sliced)]
    assert softmaxes[1] == 2 * softmaxes[0]
    assert set(weights(sliced)) == set(weights(fused))
    frames = {"frames": random_frames(T, 32).numpy()}
    one, other = run(fused, tmp_path, frames), run(sliced, tmp_path, frames)
    np.testing.assert_array_equal(one["positions"], other["positions"])
    np.testing.assert_allclose(one["tokens"], other["tokens"], rtol=0, atol=2e-5)


def weights(model: ir.Model) -> dict[str, bytes]:
    initializers = model.graph.initializers.items()
    return {name: value.const_value.tobytes() for name, value in initializers if name.startswith("vision.")}


def test_weights_have_one_name_and_one_content_in_every_graph(encoder: ir.Model, fused: ir.Model) -> None:
    one, other = weights(encoder), weights(fused)
    assert set(other) < set(one)  # the method does not ask for frame features, whose weights are left out
    assert not [name for name in set(one) - set(other) if not name.startswith("vision.head.")]
    assert [name for name in other if other[name] != one[name]] == []
    assert sum(map(len, one.values())) > 0.9 * sum(v.const_value.nbytes for v in encoder.graph.initializers.values())


def test_nodes_are_named_after_modules_and_carry_no_paths(encoder: ir.Model, fused: ir.Model) -> None:
    for model in (encoder, fused):
        names = [node.name for node in model.graph]
        assert len(set(names)) == len(names)
        assert "vision.tower.layers.1.mlp.fc1/MatMul" in names
        assert not any(node.metadata_props for node in model.graph)
    assert any(node.name.startswith("compressor/TopK") for node in fused.graph)


def test_versions_are_what_the_oldest_runtime_reads(encoder: ir.Model) -> None:
    assert encoder.ir_version <= 10
    assert encoder.graph.opset_imports[""] <= 21
    assert not encoder.functions


@pytest.mark.parametrize(("method", "budget"), [("none", T * N), ("uniform", B)])
def test_a_plan_blind_to_the_video_is_a_constant_output(
    vision: Vision, tmp_path: Path, method: str, budget: int
) -> None:
    compressor = create(method, T, N, budget)
    graph = export_compressor(compressor, vision.feature_shapes(T))
    assert check_graph(graph, "compressor") == []
    assert not any(output.is_initializer() for output in graph.graph.outputs)
    tokens = torch.randn(T, N, 32)
    given = run(graph, tmp_path, {"frame_tokens": tokens.numpy()})
    for name, expected in zip(compressor.outputs, compressor(tokens), strict=True):
        np.testing.assert_array_equal(given[name], expected.numpy(), err_msg=name)


def test_half_precision_tokens(tmp_path: Path) -> None:
    graph = export_compressor(create("uniform", T, N, B), {"frame_tokens": (T, N, 8)}, torch.float16)
    assert interface(graph)["frame_tokens"] == ("FLOAT16", [T, N, 8])
    assert interface(graph)["tokens"] == ("FLOAT16", [B, 8])


def test_what_the_vision_part_does_not_give_is_named(vision: Vision) -> None:
    with pytest.raises(ExportError, match="most-salient needs saliency, the vision part gives frame_tokens"):
        export_compressor(MostSalient(T, N, B), {"frame_tokens": (T, N, 32)})


class Branches(MostSalient):
    """Looks at a value in Python, which no fixed-shape program may."""

    def plan(self, features: Features) -> Plan:
        if features.frame_tokens.sum() > 0:
            return super().plan(features)
        return super().plan(Features(features.frame_tokens, -features.saliency))


def test_a_program_that_looks_at_values_is_refused_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    line = r"; test_vision\.py, line \d+: if features\.frame_tokens\.sum\(\) > 0:\)"
    with pytest.raises(
        ExportError, match=r"most-salient cannot be traced \(Could not guard on data-dependent expression .*" + line
    ) as error:
        export_compressor(Branches(T, N, B), {"frame_tokens": (T, N, 32), "saliency": (T, N)})
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
