"""The language model as an ONNX graph, declared layer by layer from a config and weights rather than traced.

One graph serves prefill, chunks of it, and decoding::

    inputs   inputs_embeds          [1, sequence, hidden_size] float32
             position_ids           [1, sequence] int64: original positions, gaps allowed
             past_key_values.i.key  [1, num_kv_heads, past, head_dim] float32, and .value, for every layer i
             seqlens_k              [1] int32: tokens in the cache after this call, minus 1
             total_sequence_length  [] int32: tokens in the cache after this call
    outputs  logits                 [1, 1, vocab_size] float32: of the last token
             present.i.key          [1, num_kv_heads, total, head_dim] float32, and .value, for every layer i

past and present may be one preallocated buffer, whose rows beyond the length are never read: rewinding is passing
smaller lengths. total_sequence_length must not exceed its capacity, nor position_ids the rotary tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from edgevtc.errors import ConfigError, choices
from edgevtc.exporter.decoder_config import DecoderConfig
from edgevtc.exporter.decoder_graph import GraphWriter, Weights
from edgevtc.exporter.decoder_linear import Linear
from edgevtc.exporter.decoder_ops import ContribOps

__all__ = ["BLOCK_SIZES", "LOGITS", "WEIGHT_FORMATS", "build_decoder"]

#: Weight formats of the layers → the format of the language-model head beside them.
WEIGHT_FORMATS = {"fp32": "fp32", "int8": "int8", "w8a8": "int8", "int4": "int8"}

#: Which tokens the graph gives logits for.
LOGITS = ("last", "all")

#: Weights that may share a scale in the formats int8 and int4.
BLOCK_SIZES = (16, 32, 64, 128, 256)


def build_decoder(
    config: DecoderConfig,
    weights: Mapping[str, Any],
    weight_format: str = "fp32",
    logits: str = "last",
    block_size: int = 128,
) -> ir.Model:
    """Declare the decoder of a Qwen2 checkpoint.

    A matrix is read, and quantized, only when the model is written (`onnx_ir.save` with external data), and not kept:
    the peak memory of an export is a few times its largest tensor.

    Formats: ``fp32`` is the reference. ``w8a8`` has a weight scale per output channel and an activation scale per
    token; fastest in prefill. ``int8`` and ``int4`` have a weight scale per block, with 8-bit activations in the same
    blocks. However a prompt is cut into chunks of several tokens, the logits are the same but for the kernels' rounding
    (with AVX2 to the last bit, with AVX-512 not).

    A quantized head that is tied holds the token embeddings too: row t of ``lm_head.weight.codes`` and of
    ``lm_head.weight.scales`` gives token t's, by `quantize.dequantize_blocks`.

    Args:
        config: Shape of the model.
        weights: Tensor names of transformers without prefix (``layers.0.self_attn.q_proj.weight``,
            ``embed_tokens.weight``, ``norm.weight``, ``lm_head.weight``) → arrays; may load on access.
        weight_format: One of `WEIGHT_FORMATS`.
        logits: One of `LOGITS`; with ``all`` they are [1, sequence, vocab_size].
        block_size: Longest block, one of `BLOCK_SIZES`; a layer whose input it does not divide gets a shorter one.

    Raises:
        ConfigError: An unknown format or option.
        ExportError: A tensor is missing, or has another shape than the config's (a matrix: when the model is written).
    """
    for option, value, valid in (
        ("weight_format", weight_format, WEIGHT_FORMATS),
        ("logits", logits, LOGITS),
        ("block_size", block_size, BLOCK_SIZES),
    ):
        if value not in valid:
            raise ConfigError(f"decoder: {option}={value!r} is not valid: {choices(valid)}")
    graph = GraphWriter()
    x = graph.input("inputs_embeds", ir.DataType.FLOAT, [1, "sequence", config.hidden_size])
    ops = ContribOps(graph, config, Weights(weights), block_size)
    residual = None
    for layer in range(config.num_layers):
        x, residual = _layer(ops, layer, x, residual, weight_format)
    assert residual is not None  # A config has at least one layer.
    if logits == "last":
        x, residual = ops.last_token("last_token", x), ops.last_token("last_token.residual", residual)
    x, _ = ops.add_norm("norm", x, residual)
    rows = {"embed_tokens" if config.tie_word_embeddings else "lm_head": config.vocab_size}
    x = ops.linear(Linear("lm_head", rows, config.hidden_size, WEIGHT_FORMATS[weight_format]), x)
    x.name = "logits"
    graph.output(x, ir.DataType.FLOAT, [1, 1 if logits == "last" else "sequence", config.vocab_size])
    return graph.model("decoder", ops.opsets)


def _layer(
    ops: ContribOps, layer: int, x: ir.Value, residual: ir.Value | None, weight_format: str
) -> tuple[ir.Value, ir.Value]:
    """One layer. Between layers a hidden state is a pair of which the sum is still to be taken, in the next norm."""
    config, prefix = ops.config, f"layers.{layer}"

    def project(name: str, x: ir.Value, widths: Mapping[str, int], columns: int, *, bias: bool = False) -> ir.Value:
        block = f"{prefix}.{name.partition('.')[0]}"
        parts = {f"{block}.{part}_proj": width for part, width in widths.items()}
        return ops.linear(Linear(f"{prefix}.{name}", parts, columns, weight_format, bias), x)

    if residual is None:
        x, residual = ops.norm(f"{prefix}.input_layernorm", x), x
    else:
        x, residual = ops.add_norm(f"{prefix}.input_layernorm", x, residual)

    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    widths = {"q": heads, "k": kv_heads, "v": kv_heads}
    qkv = project("self_attn.qkv_proj", x, widths, config.hidden_size, bias=True)
    query, key, value = ops.split(f"{prefix}.self_attn.split", qkv, widths)
    query = ops.rotate(f"{prefix}.self_attn.q_rotary", query)
    key = ops.rotate(f"{prefix}.self_attn.k_rotary", key)
    attended = ops.attend(f"{prefix}.self_attn", layer, query, key, value)
    x = project("self_attn.o_proj", attended, {"o": config.hidden_size}, heads)

    x, residual = ops.add_norm(f"{prefix}.post_attention_layernorm", x, residual)
    widths = {"gate": config.intermediate_size, "up": config.intermediate_size}
    gate, up = ops.split(f"{prefix}.mlp.split", project("mlp.gate_up_proj", x, widths, config.hidden_size), widths)
    x = ops.swiglu(f"{prefix}.mlp.swiglu", gate, up)
    return project("mlp.down_proj", x, {"down": config.hidden_size}, config.intermediate_size), residual
