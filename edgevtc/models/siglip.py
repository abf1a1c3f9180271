"""SigLIP's vision transformer and its attention-pooling head, written for export.

The arithmetic is transformers' `SiglipVisionModel` in eager attention; the form is one that traces into few plain
nodes: weights lie as [in, out], so that a graph holds them as MatMul takes them and every graph holds the same bytes;
queries, keys and values are one product, and the softmax scale is folded into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipVisionConfig

from edgevtc.errors import ExportError, choices
from edgevtc.models.checkpoint import Weights

__all__ = ["Dense", "PoolingHead", "SiglipTower", "TowerConfig", "TowerOutput", "activation"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """An activation by its name in a configuration.

    Raises:
        ExportError: It is not one this export knows.
    """
    if name not in ACTIVATIONS:
        raise ExportError(f"activation {name!r} cannot be exported: {choices(ACTIVATIONS)}")
    return ACTIVATIONS[name]


@dataclass(frozen=True)
class TowerConfig:
    """The part of transformers' `SiglipVisionConfig` that decides shapes and arithmetic."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_channels: int
    image_size: int
    patch_size: int
    hidden_act: str
    layer_norm_eps: float

    @classmethod
    def of(cls, config: SiglipVisionConfig) -> TowerConfig:
        """Take the fields over.

        Raises:
            ExportError: Frames or patches are not square, or the heads do not divide the width.
        """
        for name in ("image_size", "patch_size"):
            if not isinstance(getattr(config, name), int):
                raise ExportError(
                    f"vision {name} {getattr(config, name)} cannot be exported: give one number of pixels"
                )
        if config.hidden_size % config.num_attention_heads:
            raise ExportError(
                f"vision hidden_size {config.hidden_size} cannot be split over {config.num_attention_heads} heads"
            )
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    @property
    def side(self) -> int:
        """Patches in a row."""
        return self.image_size // self.patch_size


class Dense(nn.Module):
    """x [..., in] → x·weight + bias, with the weight stored as [in, out]."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", bias)

    @classmethod
    def read(cls, weights: Weights, name: str, inputs: int, outputs: int, *, bias: bool = True) -> Dense:
        """Read a `torch.nn.Linear`, which stores [out, in]."""
        return cls(weights(f"{name}.weight", outputs, inputs).T, weights(f"{name}.bias", outputs) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


class Norm(nn.Module):
    """Layer normalisation over the last axis."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weights: Weights, name: str, config: TowerConfig) -> None:
        super().__init__()
        self.register_buffer("weight", weights(f"{name}.weight", config.hidden_size))
        self.register_buffer("bias", weights(f"{name}.bias", config.hidden_size))
        self.eps = config.layer_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class Mlp(nn.Module):
    """Two dense layers with an activation between."""

    def __init__(self, weights: Weights, config: TowerConfig) -> None:
        super().__init__()
        self.fc1 = Dense.read(weights, "fc1", config.hidden_size, config.intermediate_size)
        self.fc2 = Dense.read(weights, "fc2", config.intermediate_size, config.hidden_size)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def softmax(scores: Tensor, dim: int = -1) -> Tensor:
    """Softmax in float32, given back in the scores' dtype."""
    return scores.softmax(dim, dtype=torch.float32).to(scores.dtype)


class Attention(nn.Module):
    """Multi-head self-attention over the patches of each frame."""

    def __init__(self, weights: Weights, config: TowerConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.heads = config.num_attention_heads
        query, key, value = (Dense.read(weights, f"{part}_proj", hidden, hidden) for part in "qkv")
        scale = (hidden // self.heads) ** -0.5
        assert query.bias is not None and key.bias is not None and value.bias is not None
        self.qkv = Dense(
            torch.cat([query.weight * scale, key.weight, value.weight], 1),
            torch.cat([query.bias * scale, key.bias, value.bias]),
        )
        self.out = Dense.read(weights, "out_proj", hidden, hidden)

    def forward(self, x: Tensor, received: bool = False) -> tuple[Tensor, Tensor | None, Tensor]:
        """Attend over x [C, P, hidden].

        Returns:
            The output [C, P, hidden]; the attention each patch received [C, P] float32, mean over heads and then over
            queries, where it is asked for; the keys [C, P, hidden].
        """
        frames, patches, hidden = x.shape
        shape = frames, patches, self.heads, hidden // self.heads
        parts = self.qkv(x).chunk(3, -1)
        query, key, value = (part.reshape(shape).transpose(1, 2) for part in parts)
        key = key.transpose(-1, -2)
        if not received:
            return self.merge(softmax(query @ key) @ value), None, parts[1]
        # Head by head, so that one [C, 1, P, P] map lives at a time instead of all heads' maps.
        outputs, means = [], []
        for q, k, v in zip(query.split(1, 1), key.split(1, 1), value.split(1, 1), strict=True):
            attention = softmax(q @ k)
            outputs.append(attention @ v)
            means.append(attention.mean(2, dtype=torch.float32))
        return self.merge(torch.cat(outputs, 1)), torch.cat(means, 1).mean(1), parts[1]

    def merge(self, x: Tensor) -> Tensor:
        """x [C, heads, P, head_dim] → [C, P, hidden], projected."""
        return self.out(x.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, weights: Weights, config: TowerConfig) -> None:
        super().__init__()
        self.norm1 = Norm(weights, "layer_norm1", config)
        self.attention = Attention(weights.under("self_attn."), config)
        self.norm2 = Norm(weights, "layer_norm2", config)
        self.mlp = Mlp(weights.under("mlp."), config)

    def forward(self, x: Tensor, received: bool = False) -> tuple[Tensor, Tensor | None, Tensor]:
        """x [C, P, hidden] → the same shape, with the attention received and the keys as :class:`Attention` gives."""
        attended, attention, keys = self.attention(self.norm1(x), received)
        x = x + attended
        return x + self.mlp(self.norm2(x)), attention, keys


class TowerOutput(NamedTuple):
    """What the tower gives for C frames of P patches.

    Attributes:
        hidden_states: The selected layers' outputs, each [C, P, hidden].
        received: [C, P] float32 attention each patch received in the last layer, or None where it was not asked for.
        keys: [C, P, hidden] keys of the last layer.
    """

    hidden_states: list[Tensor]
    received: Tensor | None
    keys: Tensor


class SiglipTower(nn.Module):
    """Patch embedding and the encoder layers up to the last one in use.

    Args:
        weights: The tower's tensors, from "embeddings." and "encoder." on.
        config: The tower's configuration.
        feature_layers: Indices into (embeddings, layer 1, …, layer L), as transformers' hidden_states.
    """

    position_embedding: Tensor

    def __init__(self, weights: Weights, config: TowerConfig, feature_layers: tuple[int, ...]) -> None:
        super().__init__()
        hidden, patch, side = config.hidden_size, config.patch_size, config.side
        kernel = weights("embeddings.patch_embedding.weight", hidden, config.num_channels, patch, patch)
        self.patch_embedding = Dense(
            kernel.permute(2, 3, 1, 0).reshape(-1, hidden), weights("embeddings.patch_embedding.bias", hidden)
        )
        self.register_buffer("position_embedding", weights("embeddings.position_embedding.weight", side * side, hidden))
        self.feature_layers = feature_layers
        self.layers = nn.ModuleList(
            EncoderLayer(weights.under(f"encoder.layers.{i}."), config) for i in range(max(feature_layers))
        )

    def forward(self, patches: Tensor, received: bool = False) -> TowerOutput:
        """Encode patches [C, P, patch·patch·3], channels last; `received` asks for the attention received."""
        states = [self.patch_embedding(patches) + self.position_embedding]
        for index, layer in enumerate(self.layers, start=1):
            state, attention, keys = layer(states[-1], received and index == len(self.layers))
            states.append(state)
        return TowerOutput([states[i] for i in self.feature_layers], attention, keys)


class PoolingHead(nn.Module):
    """SigLIP's post-layernorm and attention-pooling head: one learned probe attends over the patches.

    The probe is constant, so its query is too, and the keys are never formed: a head's score of a patch x is
    x·(W_k·q), the key's bias being the same for all patches. In the same way values are projected after the weighted
    sum over patches.

    Args:
        weights: Tensors from "post_layernorm." and "head." on.
        config: The tower's configuration.
    """

    score: Tensor
    value: Tensor
    value_bias: Tensor

    def __init__(self, weights: Weights, config: TowerConfig) -> None:
        super().__init__()
        hidden, heads = config.hidden_size, config.num_attention_heads
        width = hidden // heads
        query, key, value = weights("head.attention.in_proj_weight", 3 * hidden, hidden).chunk(3)
        query_bias, _, value_bias = weights("head.attention.in_proj_bias", 3 * hidden).chunk(3)
        probe = weights("head.probe", 1, 1, hidden).reshape(hidden)
        probe_query = (query @ probe + query_bias).reshape(heads, width, 1) * width**-0.5
        self.post_layernorm = Norm(weights, "post_layernorm", config)
        self.register_buffer("score", (key.reshape(heads, width, hidden) * probe_query).sum(1).T.contiguous())
        self.register_buffer("value", value.reshape(heads, width, hidden).transpose(1, 2).contiguous())
        self.register_buffer("value_bias", value_bias)
        self.out = Dense.read(weights, "head.attention.out_proj", hidden, hidden)
        self.norm = Norm(weights, "head.layernorm", config)
        self.mlp = Mlp(weights.under("head.mlp."), config)

    def forward(self, hidden_state: Tensor) -> tuple[Tensor, Tensor]:
        """hidden_state [C, P, hidden] → attention [C, P] float32, mean over heads; pooled [C, hidden] float32."""
        x = self.post_layernorm(hidden_state)
        attention = (x @ self.score).transpose(1, 2).softmax(-1, dtype=torch.float32)
        summed = attention.to(x.dtype) @ x
        values = (summed.transpose(0, 1) @ self.value).transpose(0, 1).flatten(1) + self.value_bias
        pooled = self.out(values)
        return attention.mean(1), (pooled + self.mlp(self.norm(pooled))).float()
