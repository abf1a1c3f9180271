"""The language model in torch, by transformers' own layers and unquantized: what a declared decoder is held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding

from edgevtc.decoder.prompt import Rows

__all__ = ["ReferenceDecoder"]


class ReferenceDecoder:
    """A Qwen2 decoder of which one layer is in memory at a time.

    Args:
        text_config: Of the checkpoint, with transformers' defaults filled in.
        weights: Tensors by name, see :meth:`edgevtc.models.ModelAdapter.decoder_weights`.
    """

    def __init__(self, text_config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]) -> None:
        self._config = Qwen2Config(**text_config)
        # Scores of a long prompt need not stand in memory: in a 7B's, 4 GB a layer for the tokens of 32 frames.
        self._config._attn_implementation = "sdpa"
        self._weights = weights

    def embed(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Embeddings [len(token_ids), hidden] of text tokens."""
        return self._weights["embed_tokens.weight"][np.asarray(token_ids, np.int64)]

    @torch.no_grad()
    def logits(self, rows: Rows, last: int = 1) -> NDArray[np.float32]:
        """Logits [last, vocabulary] after each of the last rows of a sequence."""
        config = self._config
        x, positions = torch.from_numpy(rows.embeddings)[None], torch.from_numpy(rows.positions)[None]
        length = x.shape[1]
        mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
        rotary = Qwen2RotaryEmbedding(config)(x, positions)
        for index in range(config.num_hidden_layers):
            with torch.device("meta"):
                layer = Qwen2DecoderLayer(config, index)
            x = self._fill(layer, f"layers.{index}.")(x, attention_mask=mask, position_embeddings=rotary)
            x = x[0] if isinstance(x, tuple) else x
            del layer  # before the next one, or the head, is read
        with torch.device("meta"):
            norm = Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps)
        x = self._fill(norm, "norm.")(x[0, -last:])
        head = "embed_tokens" if config.tie_word_embeddings else "lm_head"
        return (x @ torch.from_numpy(self._weights[f"{head}.weight"]).T).numpy()

    def _fill(self, module: nn.Module, prefix: str) -> nn.Module:
        tensors: dict[str, Tensor] = {
            name: torch.from_numpy(self._weights[prefix + name]) for name in module.state_dict()
        }
        module.load_state_dict(tensors, assign=True)
        return module.eval()
