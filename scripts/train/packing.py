"""One forward pass for many questions about a video: the visual prefix runs once, each question sees it and itself.

The arithmetic is that of Qwen2; the saving is in what is left out: questions do not see each other, and the last layer
is computed only where answers are read.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from network import pixels
from torch import Tensor, nn

from edgevtc.eval.world_words import BOS


def see(model: nn.Module, frames: Tensor, *, train_tower: bool) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 frames [B, T, H, W, 3] → tokens [B, T·N, D], head output [B, T, Dv], head attention [B, T, N].

    The language model reads the tower before its post-layernorm, the pooling head after it (as in transformers).
    """
    batch, length = frames.shape[:2]
    tower = model.model.vision_tower
    with torch.set_grad_enabled(train_tower and torch.is_grad_enabled()):
        hidden = tower.embeddings(pixels(frames).flatten(0, 1))
        hidden = tower.encoder(inputs_embeds=hidden).last_hidden_state
    tokens = model.model.apply_pooling(model.model.multi_modal_projector(hidden))
    head, normed = tower.head, tower.post_layernorm(hidden)
    probe = head.probe.expand(len(normed), -1, -1)
    pooled, attention = head.attention(probe, normed, normed, need_weights=True)
    pooled = pooled + head.mlp(head.layernorm(pooled))
    side = int(attention.shape[-1] ** 0.5)
    attention = F.avg_pool2d(attention.float().reshape(-1, 1, side, side), 2) * 4
    return (
        tokens.reshape(batch, -1, tokens.shape[-1]),
        pooled.reshape(batch, length, -1),
        attention.reshape(batch, length, -1),
    )


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def answer_logits(
    model: nn.Module,
    tokens: Tensor,
    questions: Tensor,
    answers: Tensor,
    slots: Tensor | None = None,
    valid: Tensor | None = None,
    newline: int | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Logits [B, K, A, V] of the answers, and the visual hidden states before each of the last two layers.

    Args:
        model: The embedded model.
        tokens: Visual tokens [B, N, D].
        questions: Ids [B, K, Q], left padded with 0.
        answers: Ids [B, K, A], padded with −100.
        slots: Position of each token among the original ones [B, N] (default 0 … N−1).
        valid: Which tokens are real [B, N] (default all).
        newline: Slot of the newline after the tokens (default N).
    """
    batch, number, width = tokens.shape
    asked, length = questions.shape[1:]
    language = model.model.language_model
    device = tokens.device
    text = torch.cat([questions, answers.clamp(min=0)[:, :, :-1]], 2)
    span, prefix = text.shape[2], number + 2
    slots = torch.arange(number, device=device).expand(batch, number) if slots is None else slots
    after = torch.full((batch, 1), (number if newline is None else newline) + 1, device=device)
    begin = language.embed_tokens(torch.full((batch, 1), BOS, device=device))
    hidden = torch.cat(
        [
            begin,
            tokens,
            model.model.image_newline.expand(batch, 1, width),
            language.embed_tokens(text.reshape(batch, asked * span)),
        ],
        1,
    )
    padding = (questions == 0).sum(2)[:, :, None]
    positions = (after[:, :, None] + 1 + torch.arange(span, device=device) - padding).clamp(min=0).reshape(batch, -1)
    positions = torch.cat([torch.zeros_like(after), slots + 1, after, positions], 1)
    cos, sin = (part[:, None] for part in language.rotary_emb(tokens, positions))
    prefix_mask, question_mask = _masks(text, prefix, valid)
    read = prefix + (torch.arange(asked)[:, None] * span + torch.arange(length - 1, span)).reshape(-1).to(device)
    kept = []
    for index, layer in enumerate(language.layers):
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        last = index == len(language.layers) - 1
        if index >= len(language.layers) - 2:
            kept.append(hidden[:, 1 : 1 + number])

        def split(x: Tensor, size: int = attention.head_dim) -> Tensor:
            return x.unflatten(-1, (-1, size)).transpose(1, 2)

        key, value = _rotate(split(attention.k_proj(normed)), cos, sin), split(attention.v_proj(normed))
        key, value = (x.repeat_interleave(attention.num_key_value_groups, 1) for x in (key, value))
        if last:
            hidden = hidden[:, read]
            query = _rotate(split(attention.q_proj(normed[:, read])), cos[:, :, read], sin[:, :, read])
            mask = question_mask[:, :, read - prefix]
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            query = _rotate(split(attention.q_proj(normed)), cos, sin)
            seen = F.scaled_dot_product_attention(
                query[:, :, :prefix],
                key[:, :, :prefix],
                value[:, :, :prefix],
                attn_mask=prefix_mask,
                is_causal=prefix_mask is None,
            )
            said = F.scaled_dot_product_attention(query[:, :, prefix:], key, value, attn_mask=question_mask)
            mixed = torch.cat([seen, said], 2)
        hidden = hidden + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    logits = model.lm_head(language.norm(hidden))
    return logits.reshape(batch, asked, answers.shape[2], -1), kept


def _masks(text: Tensor, prefix: int, valid: Tensor | None) -> tuple[Tensor | None, Tensor]:
    """Additive masks: prefix × prefix (None where plainly causal), and questions × (prefix + questions)."""
    batch, asked, span = text.shape
    device, total = text.device, asked * span
    real = torch.ones(batch, prefix, dtype=torch.bool, device=device)
    prefix_mask = None
    if valid is not None and not bool(valid.all()):
        real[:, 1:-1] = valid
        square = torch.ones(prefix, prefix, dtype=torch.bool, device=device).tril()
        square = square & (real[:, None] | torch.eye(prefix, dtype=torch.bool, device=device))
        prefix_mask = torch.zeros(batch, 1, prefix, prefix, device=device).masked_fill_(~square[:, None], -1e9)
    own = torch.block_diag(*[torch.ones(span, span).tril()] * asked).bool().to(device)
    own = own & ((text != 0).reshape(batch, 1, -1) | torch.eye(total, dtype=torch.bool, device=device))
    sees = torch.cat([real[:, None].expand(batch, total, prefix), own], 2)[:, None]
    return prefix_mask, torch.zeros(sees.shape, device=device).masked_fill_(~sees, -1e9)


def exact(logits: Tensor, answers: Tensor) -> Tensor:
    """Whether all words of an answer are right, given the words before them: bool [B, K]."""
    return ((logits.argmax(-1) == answers) | (answers < 0)).all(-1)
