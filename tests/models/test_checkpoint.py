"""What an adapter reads from a checkpoint folder, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoint import VIDEO_TOKEN_ID, build_model, write_checkpoint
from transformers import LlavaOnevisionForConditionalGeneration

from edgevtc.errors import ExportError
from edgevtc.models import model_types, open_model
from edgevtc.models.checkpoint import Checkpoint

pytestmark = pytest.mark.export


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "copy")


def change_json(path: Path, **values: object) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | values))


def configure(**values: object) -> Callable[[Path], None]:
    """A damage: other values in config.json."""
    return lambda folder: change_json(folder / "config.json", **values)


def older(name: str) -> str:
    """The names transformers 4 wrote."""
    name = name.removeprefix("model.")
    name = name.replace("language_model.", "language_model.model.").replace("lm_head.", "language_model.lm_head.")
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def test_geometry_prompt_and_text_config(tiny_folder: Path) -> None:
    adapter = open_model(tiny_folder)
    geometry = adapter.geometry
    assert (geometry.image_height, geometry.image_width, geometry.hidden_size) == (32, 32, 32)
    assert (geometry.grid_height, geometry.grid_width, geometry.tokens_per_frame) == (2, 2, 4)
    assert geometry.num_frames == 32
    assert adapter.prompt.video_token == "<video>"
    assert adapter.prompt.video_token_id == VIDEO_TOKEN_ID
    assert adapter.prompt.video_newline
    assert adapter.text_config["num_key_value_heads"] == 2
    assert adapter.text_config["tie_word_embeddings"] is True
    assert adapter.text_config["rms_norm_eps"] == 1e-6  # a default, absent from many configurations


def test_the_published_geometry(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= {"image_size": 384, "patch_size": 14, "hidden_size": 1152, "num_attention_heads": 16}
    (folder / "config.json").write_text(json.dumps(config))
    geometry = open_model(folder).geometry
    assert (geometry.grid_height, geometry.tokens_per_frame) == (14, 196)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize(
    ("rename", "shards"), [(lambda name: name, 1), (older, 1), (older, 3)], ids=["new", "old", "old-sharded"]
)
def test_decoder_weights_by_plain_names(tmp_path: Path, tie: bool, rename: Callable[[str], str], shards: int) -> None:
    model = build_model(tie=tie)
    adapter = open_model(write_checkpoint(tmp_path / "model", model, rename, shards))
    weights = adapter.decoder_weights()
    expected = {name: value.numpy() for name, value in model.model.language_model.state_dict().items()}
    if not tie:
        expected["lm_head.weight"] = model.lm_head.weight.detach().numpy()
    assert set(weights) == set(expected)
    assert len(weights) == len(expected)
    for name, value in expected.items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], value)
    newline = adapter.special_embeddings()["image_newline"]
    np.testing.assert_array_equal(newline, model.model.image_newline.detach().numpy())
    assert adapter.vision().outputs == ("frame_tokens", "saliency", "frame_features")
    with pytest.raises(KeyError):
        weights["vision_tower.post_layernorm.weight"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_are_widened(folder: Path, dtype: torch.dtype) -> None:
    tensors = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    weight = open_model(folder).decoder_weights()["layers.1.mlp.up_proj.weight"]
    stored = tensors["model.language_model.layers.1.mlp.up_proj.weight"]
    np.testing.assert_array_equal(weight, stored.float().numpy())


def test_loading_the_vision_part_reads_nothing_of_the_decoder(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    tensor = Checkpoint.tensor
    monkeypatch.setattr(
        Checkpoint, "tensor", lambda self, name, *shape: (read.append(name), tensor(self, name, *shape))[1]
    )
    adapter = open_model(tiny_folder)
    weights = adapter.decoder_weights()
    assert read == []
    adapter.vision()
    assert read and not [name for name in read if not name.startswith(("vision_tower.", "multi_modal_projector."))]
    read.clear()
    assert "norm.weight" in weights and "missing" not in weights
    assert weights["norm.weight"].shape == (32,)
    assert read == ["decoder.norm.weight"] * len(read)


CLIP_MEAN = [0.48, 0.46, 0.41]


@pytest.mark.parametrize(
    ("files", "resample", "mean"),
    [
        ({}, "bicubic", 0.5),
        ({"preprocessor_config.json": {"resample": 2, "image_mean": CLIP_MEAN}}, "bilinear", 0.48),
        (
            {
                "preprocessor_config.json": {"resample": 2, "image_mean": CLIP_MEAN},
                "video_preprocessor_config.json": {"resample": 3, "size": {"height": 32, "width": 32}},
            },
            "bicubic",
            0.5,
        ),
        (
            {
                "video_preprocessor_config.json": {"resample": 3},
                "processor_config.json": {"video_processor": {"resample": 1, "size": {"shortest_edge": 32}}},
            },
            "lanczos",
            0.5,
        ),
        (
            {"processor_config.json": {"processor_class": "x", "image_processor": {"do_normalize": False}}},
            "bicubic",
            0.0,
        ),
    ],
)
def test_preprocessing_is_what_the_saved_processor_says(
    folder: Path, files: dict[str, dict[str, object]], resample: str, mean: float
) -> None:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    preprocessing = open_model(folder).preprocessing
    assert (preprocessing.height, preprocessing.width) == (32, 32)
    assert preprocessing.resample == resample
    assert preprocessing.mean[0] == mean


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"size": {"height": 64, "width": 64}}, "resizes to 64×64, the vision tower takes 32×32"),
        ({"do_center_crop": True}, "crops the frame"),
        ({"rescale_factor": 1 / 127.5}, "does not rescale by 1/255"),
        ({"resample": 17}, "not a valid processor configuration"),
        ({"image_mean": [0.5]}, "not a valid processor configuration"),
    ],
)
def test_preprocessing_the_graph_cannot_do_is_refused(folder: Path, content: dict[str, object], message: str) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match=message):
        open_model(folder)


def unlink(folder: Path, name: str) -> None:
    (folder / name).unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])


def climb(folder: Path) -> None:
    unlink(folder, "model.safetensors")
    change_json(folder / "model.safetensors.index.json", weight_map={"image_newline": "../secret.safetensors"})


def lose_shard(folder: Path) -> None:
    unlink(folder, "model.safetensors")
    change_json(
        folder / "model.safetensors.index.json", weight_map={"image_newline": "model-00001-of-00002.safetensors"}
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: unlink(folder, "config.json"), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json holds no JSON object"),
        (configure(model_type="gpt2"), "'gpt2', which cannot be exported: one of: "),
        (configure(text_config={"model_type": "llama"}), "'llama'.* one of: qwen2"),
        (configure(quantization_config={"bits": 4}), "quantized weights"),
        (configure(vision_feature_select_strategy="default"), "must be 'full'"),
        (configure(vision_feature_select_strategy="none"), "not valid"),
        (configure(vision_config={"model_type": "siglip_vision_model", "image_size": [32, 48]}), "give one number"),
        (configure(vision_config={"model_type": "siglip_vision_model", "hidden_size": 33}), "cannot be split"),
        (pickled, "pickled weights only"),
        (lambda folder: unlink(folder, "model.safetensors"), "neither model.safetensors nor"),
        (truncate, "not a safetensors file"),
        (climb, "outside the checkpoint's folder"),
        (lose_shard, "lacks model-00001-of-00002.safetensors"),
    ],
)
def test_what_cannot_be_opened_says_why_in_one_line(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    with pytest.raises(ExportError, match=message) as error:
        open_model(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vision_feature_layer": 5}, "vision_feature_layer 5 does not fit a tower of 2 layers"),
        ({"vision_feature_layer": 0}, "vision_feature_layer 0 does not fit"),
        ({"projector_hidden_act": "mish"}, "activation 'mish' cannot be exported: one of: gelu"),
        ({"multimodal_projector_bias": True, "text_config": {"model_type": "qwen2", "hidden_size": 64}}, "asks for"),
    ],
)
def test_a_vision_part_that_does_not_fit_is_refused(folder: Path, values: dict[str, object], message: str) -> None:
    change_json(folder / "config.json", **values)
    with pytest.raises(ExportError, match=message):
        open_model(folder).vision()


def test_missing_tensors_are_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.vision_tower.encoder.layers.1.mlp.fc2.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ExportError, match=r"no tensor vision_tower\.encoder\.layers\.1\.mlp\.fc2\.bias"):
        open_model(folder).vision()


def test_a_prompt_needs_the_tokenizer(folder: Path) -> None:
    change_json(folder / "config.json", video_token_index=999)
    with pytest.raises(ExportError, match="no token 999"):
        _ = open_model(folder).prompt
    unlink(folder, "tokenizer.json")
    with pytest.raises(ExportError, match=r"no tokenizer\.json"):
        _ = open_model(folder).prompt


def test_transformers_reads_the_tiny_checkpoint_too(
    tiny_folder: Path, tiny_model: LlavaOnevisionForConditionalGeneration
) -> None:
    """The fixture is a checkpoint as transformers has them, not only as this project reads them."""
    loaded = LlavaOnevisionForConditionalGeneration.from_pretrained(tiny_folder).state_dict()
    for name, value in tiny_model.state_dict().items():
        torch.testing.assert_close(loaded[name], value)


def test_model_types_are_listed() -> None:
    assert "llava_onevision" in model_types()
