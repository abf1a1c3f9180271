"""LLaVA-OneVision: a SigLIP tower, a two-layer projector, 2×2 bilinear pooling, a Qwen2 decoder.

Source: Li et al., LLaVA-OneVision (arXiv 2408.03326); the layout is transformers'
`LlavaOnevisionForConditionalGeneration`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

from edgevtc.errors import ConfigError, ExportError, choices
from edgevtc.methods import NEEDS
from edgevtc.models.base import (
    FRAME_FEATURE_SOURCES,
    SALIENCY_SOURCES,
    Geometry,
    ModelAdapter,
    Prompt,
    Vision,
    VisionSize,
)
from edgevtc.models.checkpoint import Checkpoint, DecoderWeights, Weights, read_json
from edgevtc.models.preprocessing import read_preprocessing
from edgevtc.models.siglip import Dense, PoolingHead, SiglipTower, TowerConfig, activation

__all__ = ["LlavaOnevision", "LlavaOnevisionVision"]

#: Layouts of the tensor names over transformers' versions, reduced to one; applied in order.
RENAMES = (
    (re.compile(r"^model\."), ""),
    (re.compile(r"^vision_tower\.vision_model\."), "vision_tower."),
    (re.compile(r"^language_model\.(model\.)?"), "decoder."),
    (re.compile(r"^lm_head\."), "decoder.lm_head."),
)


def rename(stored: str) -> str:
    """A stored tensor name → "vision_tower.…", "multi_modal_projector.…", "decoder.…" or "image_newline"."""
    for pattern, replacement in RENAMES:
        stored = pattern.sub(replacement, stored)
    return stored


class LlavaOnevision(ModelAdapter):
    """A LLaVA-OneVision checkpoint of any size.

    Raises:
        ExportError: The configuration asks for what this adapter does not export, or the weights cannot be read.
    """

    model_type = "llava_onevision"

    def __init__(self, folder: Path) -> None:
        stored = read_json(folder / "config.json")
        if "quantization_config" in stored:
            raise ExportError(f"{folder} holds quantized weights: give the original, export quantizes itself")
        for part, known in (("vision_config", "siglip_vision_model"), ("text_config", "qwen2")):
            if (kind := stored.get(part, {}).get("model_type", known)) != known:
                raise ExportError(
                    f"{folder} has a {part} of type {kind!r}, which cannot be exported: {choices([known])}"
                )
        try:
            config = LlavaOnevisionConfig(**stored)
        except (TypeError, ValueError, StrictDataclassError) as error:
            raise ExportError(f"{folder}/config.json is not valid ({' '.join(str(error).split())})") from None
        if config.vision_feature_select_strategy != "full":
            raise ExportError(f"{folder}: vision_feature_select_strategy must be 'full': SigLIP has no class token")
        text = cast(Qwen2Config, config.text_config)
        tower = TowerConfig.of(cast(SiglipVisionConfig, config.vision_config))
        pooled = math.ceil(tower.side / 2)
        self.folder, self.config, self.tower_config = folder, config, tower
        self.checkpoint = Checkpoint(folder, rename)
        self.preprocessing = read_preprocessing(folder, tower.image_size)
        self.text_config: dict[str, Any] = text.to_dict() | {"tie_word_embeddings": config.tie_word_embeddings}
        self.geometry = Geometry(
            num_frames=32,
            image_height=tower.image_size,
            image_width=tower.image_size,
            grid_height=pooled,
            grid_width=pooled,
            hidden_size=text.hidden_size,
        )

    @property
    def prompt(self) -> Prompt:
        if not (path := self.folder / "tokenizer.json").is_file():
            raise ExportError(f"{self.folder} has no tokenizer.json: save the tokenizer beside the checkpoint")
        token_id = self.config.video_token_index
        token = Tokenizer.from_file(str(path)).id_to_token(token_id)
        if token is None:
            raise ExportError(f"{path} has no token {token_id}, which config.json names as video_token_index")
        # transformers and the original code both end a video with one newline ("one_token").
        return Prompt(video_token=token, video_token_id=token_id, video_newline=True)

    def vision(
        self,
        needs: Sequence[str] = ("frame_tokens", "saliency", "frame_features"),
        *,
        saliency: str = "siglip_head",
        frame_features: str = "siglip_head",
        siglip_head: Path | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> LlavaOnevisionVision:
        for option, value, valid in (
            ("--saliency", saliency, SALIENCY_SOURCES),
            ("--frame-features", frame_features, FRAME_FEATURE_SOURCES),
            *(("needs", need, NEEDS) for need in needs),
        ):
            if value not in valid:
                raise ConfigError(f"{option} {value!r} is not valid: {choices(valid)}")
        outputs = tuple(name for name in NEEDS if name in needs)
        sources = {"saliency": saliency, "frame_features": frame_features}
        from_head = [name for name in outputs if sources.get(name) == "siglip_head"]
        head = PoolingHead(self._head_weights(siglip_head, from_head), self.tower_config) if from_head else None
        module = LlavaOnevisionVision(self, outputs, sources, head)
        # The module's own buffers, pixel scale and pooling weights, stay float32: they serve saliency too.
        for part in module.children():
            part.to(dtype)
        return module.eval()

    def require_sources(
        self, needs: Sequence[str], *, saliency: str, frame_features: str, siglip_head: Path | None
    ) -> None:
        sources = {"saliency": saliency, "frame_features": frame_features}
        from_head = [name for name in NEEDS if name in needs and sources.get(name) == "siglip_head"]
        if from_head or siglip_head is not None:
            weights, wanted = self._head_weights(siglip_head, from_head), self.tower_config.hidden_size
            if (width := weights.checkpoint.size(f"{weights.prefix}head.probe")) != wanted:
                raise ExportError(
                    f"the pooling head of {siglip_head or self.folder} has width {width}, the vision tower {wanted}: "
                    "give the tower's own SigLIP checkpoint with --siglip-head"
                )

    def vision_size(self) -> VisionSize:
        tower = self.tower_config
        layers = max(feature_layers(self.config.vision_feature_layer, tower.num_hidden_layers))
        unread = re.compile(r"decoder\.|image_newline|vision_tower\.(head|post_layernorm)\.")
        layer = re.compile(r"vision_tower\.encoder\.layers\.(\d+)\.")
        names = [
            name
            for name in self.checkpoint
            if not unread.match(name) and not ((match := layer.match(name)) and int(match[1]) >= layers)
        ]
        patches = tower.side**2
        # Of a layer: the scores of all heads before and after the softmax; or what the MLP is made of.
        attention = 2 * tower.num_attention_heads * patches**2
        mlp = patches * (2 * tower.intermediate_size + 2 * tower.hidden_size)
        return VisionSize(sum(self.checkpoint.size(name) for name in names), layers, max(attention, mlp))

    def decoder_weights(self) -> Mapping[str, NDArray[np.float32]]:
        tied = frozenset({"lm_head.weight"} if self.config.tie_word_embeddings else ())
        return DecoderWeights(self.checkpoint, "decoder.", leave_out=tied)

    def special_embeddings(self) -> dict[str, NDArray[np.float32]]:
        return {"image_newline": self.checkpoint.tensor("image_newline", self.geometry.hidden_size).numpy()}

    def _head_weights(self, path: Path | None, wanted: list[str]) -> Weights:
        if path is None:
            weights = Weights(self.checkpoint, "vision_tower.")
            if "head.probe" not in weights:
                raise ExportError(
                    f"{self.folder} has no SigLIP pooling head to take {' and '.join(wanted)} from: give the "
                    "tower's own SigLIP checkpoint with --siglip-head, or choose the substitutes "
                    "--saliency siglip_last_mean --frame-features mean"
                )
        else:
            source = Checkpoint(path)
            prefixes = [name.removesuffix("head.probe") for name in source if name.endswith("head.probe")]
            if len(prefixes) != 1:
                raise ExportError(f"{path} has no SigLIP pooling head (head.probe): give a SigLIP vision checkpoint")
            weights = Weights(source, prefixes[0])
        return weights


class LlavaOnevisionVision(Vision):
    """Frames → tokens after projector and pooling, with saliency and frame descriptors from the chosen sources.

    Args:
        model: The opened checkpoint.
        outputs: Names of the outputs, in the order of :data:`edgevtc.methods.NEEDS`.
        sources: "saliency" and "frame_features" → where each comes from.
        head: SigLIP's pooling head, or None where no source is `siglip_head`.
    """

    pixel_scale: Tensor
    pixel_shift: Tensor
    pool_weights: Tensor

    def __init__(
        self, model: LlavaOnevision, outputs: tuple[str, ...], sources: dict[str, str], head: PoolingHead | None
    ) -> None:
        super().__init__()
        config, tower = model.config, model.tower_config
        self.geometry = model.geometry
        self.outputs = outputs
        self.sources = sources
        self.patch_size, self.side = tower.patch_size, tower.side
        layers = feature_layers(config.vision_feature_layer, tower.num_hidden_layers)
        self.tower = SiglipTower(Weights(model.checkpoint, "vision_tower."), tower, layers)
        self.head = head
        projector, width = Weights(model.checkpoint, "multi_modal_projector."), model.geometry.hidden_size
        bias = config.multimodal_projector_bias
        self.linear_1 = Dense.read(projector, "linear_1", tower.hidden_size * len(layers), width, bias=bias)
        self.linear_2 = Dense.read(projector, "linear_2", width, width, bias=bias)
        self.act = activation(config.projector_hidden_act)
        std = torch.tensor(model.preprocessing.std)
        repeats = self.patch_size**2
        self.register_buffer("pixel_scale", (1 / (255 * std)).repeat(repeats))
        self.register_buffer("pixel_shift", (-torch.tensor(model.preprocessing.mean) / std).repeat(repeats))
        self.register_buffer("pool_weights", bilinear_pooling(self.side, self.geometry.grid_height))

    def features(self, frames: Tensor) -> dict[str, Tensor]:
        tower = self.tower(
            self.patches(frames),
            received="saliency" in self.outputs and self.sources["saliency"] == "siglip_last_mean",
        )
        # The pooling's rows sum to 1, so it commutes with the second layer, which then sees a quarter of the tokens.
        projected = self.act(self.linear_1(torch.cat(tower.hidden_states, -1)))
        features = {"frame_tokens": self.linear_2(self.pool(projected))}
        attention, pooled = self.head(tower.hidden_states[-1]) if self.head is not None else (None, None)
        if "saliency" in self.outputs:
            source = {"siglip_head": attention, "siglip_last_mean": tower.received}[self.sources["saliency"]]
            features["saliency"] = self.pool(source[..., None]).squeeze(-1)
        if "frame_features" in self.outputs:
            mean = features["frame_tokens"].mean(1, dtype=torch.float32)
            features["frame_features"] = {"siglip_head": pooled, "mean": mean}[self.sources["frame_features"]]
        if "keys" in self.outputs:
            features["keys"] = self.pool(tower.keys.float())
        return features

    def patches(self, frames: Tensor) -> Tensor:
        """frames [C, H, W, 3] uint8 → normalised patches [C, P, patch·patch·3]; what is left at the edge is cut."""
        side, patch = self.side, self.patch_size
        pixels = frames.float()[:, : side * patch, : side * patch]
        blocks = pixels.reshape(-1, side, patch, side, patch * 3).transpose(2, 3)
        flat = blocks.reshape(-1, side * side, patch * patch * 3)
        return (flat * self.pixel_scale + self.pixel_shift).to(self.linear_1.weight.dtype)

    def pool(self, x: Tensor) -> Tensor:
        """x [C, P, *] → [C, N, *]."""
        return self.pool_weights.to(x.dtype) @ x


def feature_layers(stated: int | list[int], last: int) -> tuple[int, ...]:
    """`vision_feature_layer` as indices into (embeddings, layer 1, …, layer `last`).

    Raises:
        ExportError: An index is out of range, or none of the tower's layers is used.
    """
    indices = [stated] if isinstance(stated, int) else list(stated)
    if not all(-last - 1 <= i <= last for i in indices) or all(i % (last + 1) == 0 for i in indices):
        raise ExportError(f"vision_feature_layer {stated} does not fit a tower of {last} layers")
    return tuple(i % (last + 1) for i in indices)


def bilinear_pooling(side: int, pooled: int) -> Tensor:
    """[pooled², side²] matrix of the bilinear interpolation from side×side patches to pooled×pooled tokens.

    As a matrix it pools tokens, saliency and keys alike, and engines cannot differ about coordinates.
    """
    patches = side * side
    basis = torch.eye(patches).reshape(patches, 1, side, side)
    return F.interpolate(basis, size=(pooled, pooled), mode="bilinear").reshape(patches, -1).T.contiguous()
