"""LLaVA-OneVision checkpoints with random weights, small enough to write in a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

VIDEO_TOKEN_ID = 3


def build_model(
    *,
    head: bool = True,
    image_size: int = 32,
    patch_size: int = 8,
    vision_hidden: int = 32,
    vision_layers: int = 2,
    hidden: int = 32,
    layers: int = 2,
    feature_layer: int | list[int] = -1,
    tie: bool = True,
) -> LlavaOnevisionForConditionalGeneration:
    """A random LLaVA-OneVision in float32, its weights large enough for the attention not to be flat."""
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=vision_hidden,
            intermediate_size=3 * vision_hidden,
            num_hidden_layers=vision_layers,
            num_attention_heads=4,
            image_size=image_size,
            patch_size=patch_size,
            vision_use_head=head,
        ).to_dict(),
        text_config=Qwen2Config(
            vocab_size=40,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tie,
        ).to_dict(),
        image_token_index=38,
        video_token_index=VIDEO_TOKEN_ID,
        vision_feature_layer=feature_layer,
        image_grid_pinpoints=[[image_size, image_size]],
        tie_word_embeddings=tie,
    )
    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layernorm" not in name and "layer_norm" not in name:
                parameter.normal_(std=0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5 * 1.5)
    return model


def write_checkpoint(
    folder: Path,
    model: LlavaOnevisionForConditionalGeneration,
    rename: Callable[[str], str] = lambda name: name,
    shards: int = 1,
) -> Path:
    """Write what `from_pretrained` reads: configuration, safetensors (with an index if sharded), tokenizer.

    Args:
        folder: Created.
        model: As from :func:`build_model`.
        rename: Name in the module ("model.vision_tower.…") → name in the file.
        shards: Number of safetensors files.
    """
    folder.mkdir()
    model.config.save_pretrained(folder)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    tensors = {rename(name): value.contiguous() for name, value in model.state_dict().items() if name not in tied}
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
    else:
        places = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
        for file in set(places.values()):
            save_file({name: tensors[name] for name in names if places[name] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    vocabulary = {f"w{i}": i for i in range(40) if i != VIDEO_TOKEN_ID} | {"<video>": VIDEO_TOKEN_ID}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def random_frames(count: int, size: int) -> torch.Tensor:
    """[count, size, size, 3] uint8: smooth colour fields, as unlike each other as a video's frames."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (smooth.permute(0, 2, 3, 1) * 255).to(torch.uint8)


def write_texts(folder: Path) -> Path:
    """Add what an export needs beside weights and tokenizer: a chat template and the token that ends an answer."""
    content = "{% for part in message.content %}{{ part.text if part.type == 'text' else '<video>' }} {% endfor %}"
    template = f"{{% for message in messages %}}w1 {content}{{% endfor %}}w2"
    (folder / "chat_template.jinja").write_text(template)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 39, "max_new_tokens": 4}))
    return folder
