"""The vision part computes what transformers computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_checkpoint import build_model, random_frames, write_checkpoint
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration

from edgevtc.errors import ConfigError, ExportError
from edgevtc.models import open_model

pytestmark = pytest.mark.export

TOLERANCE = {"rtol": 0, "atol": 1e-4}


def pixels(frames: Tensor) -> Tensor:
    """What LLaVA-OneVision's processor makes of frames that have the right size."""
    return (frames.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def pooled(model: LlavaOnevisionForConditionalGeneration, value: Tensor) -> Tensor:
    """[C, P] → [C, N] by the model's own pooling."""
    return model.model.apply_pooling(value[..., None])[..., 0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"feature_layer": -2},
        {"feature_layer": 1},
        {"feature_layer": [-1, -2]},
        {"image_size": 40},  # an odd grid: 5×5 patches pool to 3×3
        {"image_size": 37},  # pixels left over at the edge
    ],
    ids=str,
)
def test_frame_tokens_are_those_of_get_video_features(tmp_path: Path, options: dict[str, int]) -> None:
    model = build_model(**options)
    adapter = open_model(write_checkpoint(tmp_path / "model", model))
    frames = random_frames(3, adapter.geometry.image_height)
    with torch.no_grad():
        (tokens,) = adapter.vision(["frame_tokens"])(frames)
        expected = model.model.get_video_features(pixels(frames)[None]).pooler_output[0]
    # Its last row is the newline, which is no token of a frame.
    expected = expected[:-1].reshape(3, adapter.geometry.tokens_per_frame, -1)
    assert expected.std() > 1
    torch.testing.assert_close(tokens, expected, **TOLERANCE)


def test_pooling_head_gives_saliency_and_frame_features(
    tiny_model: LlavaOnevisionForConditionalGeneration, tiny_folder: Path
) -> None:
    frames = random_frames(3, 32)
    with torch.no_grad():
        _, saliency, features = open_model(tiny_folder).vision()(frames)
        tower = tiny_model.model.vision_tower
        output = tower(pixels(frames))
        probe = tower.head.probe.repeat(3, 1, 1)
        attention = tower.head.attention(probe, output.last_hidden_state, output.last_hidden_state)[1][:, 0]
    assert attention.std() > 1e-3
    torch.testing.assert_close(features, output.pooler_output, **TOLERANCE)
    torch.testing.assert_close(saliency, pooled(tiny_model, attention), rtol=1e-4, atol=1e-7)


def test_last_mean_is_the_attention_received_in_the_last_layer(
    tiny_model: LlavaOnevisionForConditionalGeneration, tiny_folder: Path
) -> None:
    frames = random_frames(3, 32)
    vision = open_model(tiny_folder).vision(saliency="siglip_last_mean", frame_features="mean")
    tower = tiny_model.model.vision_tower
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        tokens, saliency, features = vision(frames)
        attention = tower(pixels(frames), output_attentions=True).attentions[-1]
    # Over heads, then over queries.
    received = attention.mean(1).mean(1)
    assert received.std() > 1e-3
    torch.testing.assert_close(saliency, pooled(tiny_model, received), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(features, tokens.mean(1))


def test_reading_the_attention_does_not_change_the_tokens(tiny_folder: Path) -> None:
    frames, adapter = random_frames(2, 32), open_model(tiny_folder)
    (plain,) = adapter.vision(["frame_tokens"])(frames)
    read, _ = adapter.vision(["frame_tokens", "saliency"], saliency="siglip_last_mean")(frames)
    torch.testing.assert_close(read, plain, rtol=0, atol=1e-5)


def test_keys_are_those_of_the_last_layer(
    tiny_model: LlavaOnevisionForConditionalGeneration, tiny_folder: Path
) -> None:
    frames, seen = random_frames(2, 32), []
    tower = tiny_model.model.vision_tower
    hook = tower.encoder.layers[-1].self_attn.k_proj.register_forward_hook(lambda *call: seen.append(call[-1]))
    with torch.no_grad():
        tower(pixels(frames))
        _, keys = open_model(tiny_folder).vision(["keys", "frame_tokens"])(frames)
    hook.remove()
    torch.testing.assert_close(keys, tiny_model.model.apply_pooling(seen[0]), **TOLERANCE)


def test_shapes_are_known_without_computing(tiny_folder: Path) -> None:
    adapter = open_model(tiny_folder)
    vision = adapter.vision(["frame_tokens", "saliency", "frame_features", "keys"])
    assert vision.outputs == ("frame_tokens", "saliency", "frame_features", "keys")
    shapes = vision.feature_shapes(3)
    assert shapes == {"frame_tokens": (3, 4, 32), "saliency": (3, 4), "frame_features": (3, 32), "keys": (3, 4, 32)}
    assert {name: tuple(value.shape) for name, value in vision.features(random_frames(3, 32)).items()} == shapes


def test_half_precision_keeps_decisions_in_float32(tiny_folder: Path) -> None:
    frames, adapter = random_frames(3, 32), open_model(tiny_folder)
    full = adapter.vision()(frames)
    tokens, saliency, features = adapter.vision(dtype=torch.float16)(frames)
    assert (tokens.dtype, saliency.dtype, features.dtype) == (torch.float16, torch.float32, torch.float32)
    for half, reference in zip((tokens, saliency, features), full, strict=True):
        assert torch.cosine_similarity(half.float().flatten(), reference.flatten(), dim=0) > 0.9999


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without the pooling head, as LLaVA ships them."""
    return write_checkpoint(tmp_path_factory.mktemp("headless") / "model", build_model(head=False))


def test_without_a_head_the_error_names_the_substitutes(headless: Path) -> None:
    adapter = open_model(headless)
    with pytest.raises(ExportError, match="saliency and frame_features from") as error:
        adapter.vision()
    for remedy in ("--siglip-head", "--saliency siglip_last_mean", "--frame-features mean"):
        assert remedy in str(error.value)
    with pytest.raises(ExportError, match="to take frame_features from"):
        adapter.vision(saliency="siglip_last_mean")
    assert adapter.vision(["frame_tokens"]).outputs == ("frame_tokens",)


@pytest.mark.parametrize("form", ["folder", "file", "whole siglip"])
def test_head_of_another_checkpoint(
    tiny_model: LlavaOnevisionForConditionalGeneration, tiny_folder: Path, headless: Path, tmp_path: Path, form: str
) -> None:
    tower = tiny_model.model.vision_tower
    if form == "whole siglip":
        from safetensors.torch import save_file

        path = tmp_path / "siglip.safetensors"
        tensors = {f"vision_model.{name}": value.contiguous() for name, value in tower.state_dict().items()}
        save_file(tensors | {"text_model.head.weight": torch.ones(2, 2)}, path)
    else:
        tower.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors" if form == "file" else tmp_path
    frames = random_frames(2, 32)
    # With the same tower, only the source of the head differs.
    expected = open_model(tiny_folder).vision()
    given = open_model(headless).vision(siglip_head=path)
    given.tower.load_state_dict(expected.tower.state_dict())
    for one, other in zip(given(frames)[1:], expected(frames)[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_a_checkpoint_without_head_is_no_source_of_one(tiny_folder: Path, headless: Path) -> None:
    with pytest.raises(ExportError, match=r"head\.probe"):
        open_model(tiny_folder).vision(siglip_head=headless)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"saliency": "cls"}, "--saliency 'cls' is not valid: one of: siglip_head, siglip_last_mean"),
        ({"frame_features": "max"}, "--frame-features 'max' is not valid: one of: siglip_head, mean"),
        ({"needs": ["tokens"]}, "needs 'tokens' is not valid: one of: frame_tokens"),
    ],
)
def test_unknown_choices_list_the_valid_ones(tiny_folder: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_model(tiny_folder).vision(**options)
