"""The embedded model: an unmodified LLaVA-OneVision of 3.4 M parameters, its tokenizer, and its checkpoint folder."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from edgevtc.eval.world_labels import CELL, GRID
from edgevtc.eval.world_words import BOS, EOS, IMAGE, PAD, UNKNOWN, VIDEO, VOCABULARY, VOCABULARY_ROWS

HIDDEN, VISION_HIDDEN = 192, 128
#: Every question stands alone: the model was trained on one question a prompt, so earlier turns are left out.
CHAT_TEMPLATE = """\
{%- set turn = messages | selectattr("role", "equalto", "user") | list | last -%}
<bos> <video> <q>
{%- if turn.content is string %} {{ turn.content }}
{%- else %}{% for part in turn.content if part.type == "text" %} {{ part.text }}{% endfor %}
{%- endif %} <a>"""
PREPROCESSING = {
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def build(seed: int = 0, grid: int = GRID) -> LlavaOnevisionForConditionalGeneration:
    """The model with random weights. The vision tower has SigLIP's attention-pooling head.

    A frame has grid × grid visual tokens, each pooled from 2×2 patches, and 16 pixels for each along its sides.
    """
    side = grid * CELL
    vision = SiglipVisionConfig(
        hidden_size=VISION_HIDDEN,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=side,
        patch_size=CELL // 2,
        vision_use_head=True,
    )
    text = Qwen2Config(
        vocab_size=VOCABULARY_ROWS,
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.03,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[side, side]],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return LlavaOnevisionForConditionalGeneration(config)


def grid_of(model: nn.Module) -> int:
    """Visual tokens along each side of a frame."""
    return model.config.vision_config.image_size // CELL


def warm_start(model: nn.Module, folder: Path) -> list[str]:
    """Copy the weights of a checkpoint folder. Returns the names it did not have.

    A grown table of words keeps its first rows; the tower's positions are stretched over another grid.

    Raises:
        ValueError: A weight of the folder has no place in the model.
    """
    old = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    known = old.config.text_config.vocab_size
    words = known if known == VOCABULARY_ROWS else known - 2  # the first world kept a spare row and <image> at the end
    state, new = old.state_dict(), model.state_dict()
    if unplaced := state.keys() - new.keys():
        raise ValueError(f"{folder} holds weights that this model has no place for: {sorted(unplaced)[:3]}")
    for name, value in state.items():
        if value.shape == new[name].shape:
            new[name] = value
        elif name.endswith("position_embedding.weight"):
            new[name] = _stretched(value, len(new[name]))
        else:
            new[name][:words] = value[:words]
    model.load_state_dict(new)
    return sorted(new.keys() - state.keys())


def _stretched(positions: Tensor, count: int) -> Tensor:
    """Embeddings of a square of positions [P, D] for a square of `count`."""
    old, new = (math.isqrt(number) for number in (len(positions), count))
    square = positions.T.reshape(1, -1, old, old)
    return F.interpolate(square, (new, new), mode="bicubic", align_corners=False).reshape(-1, count).T


def load_heads(heads: nn.Module, folder: Path) -> bool:
    """Copy what a folder has of the auxiliary heads (rows of grown heads as far as they go)."""
    path = folder / "heads.safetensors"
    if not path.exists():
        return False
    new = heads.state_dict()
    for name, value in load_file(path).items():
        new[name][: len(value)] = value
    heads.load_state_dict(new)
    return True


def tokenizer() -> PreTrainedTokenizerFast:
    """Word-level tokenizer that ignores case and punctuation and reads colour as color."""
    words = Tokenizer(models.WordLevel({**VOCABULARY, "<image>": IMAGE}, unk_token="<unk>"))
    words.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[?!.,]"), " "),
            normalizers.Replace("colour", "color"),
        ]
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {index: word for word, index in VOCABULARY.items()}
    special = [names[index] for index in range(UNKNOWN + 1)]
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=[*special[3:6], "<image>"],
    )


def save_folder(model: nn.Module, heads: nn.Module, folder: Path, about: dict[str, object]) -> None:
    """Write an fp16 checkpoint folder in transformers' layout, whole or not at all.

    `heads.safetensors` (auxiliary heads) and `training.json` (`about`) let training go on from the folder alone.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    half = build(grid=grid_of(model))
    half.load_state_dict(model.state_dict())
    half.generation_config.update(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, max_new_tokens=4)
    half.half().save_pretrained(part)
    tokenizer().save_pretrained(part)
    (part / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    side = grid_of(model) * CELL
    preprocessing = {"size": {"height": side, "width": side}, **PREPROCESSING}
    (part / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=1) + "\n")
    save_file(
        {name: value.detach().cpu().half().contiguous() for name, value in heads.state_dict().items()},
        part / "heads.safetensors",
    )
    (part / "training.json").write_text(json.dumps(about, indent=1) + "\n")
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def pixels(frames: Tensor) -> Tensor:
    """uint8 frames [B, T, H, W, 3] → [B, T, 3, H, W] in [−1, 1]."""
    return frames.permute(0, 1, 4, 2, 3).float().div_(127.5).sub_(1)
