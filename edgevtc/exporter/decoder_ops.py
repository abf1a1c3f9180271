"""The steps of a decoder layer in ONNX Runtime's contrib operators; another form is another class of these methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevtc.exporter.decoder_config import DecoderConfig
from edgevtc.exporter.decoder_graph import CONTRIB, GraphWriter, Weights
from edgevtc.exporter.decoder_linear import LinearWriter

__all__ = ["ContribOps"]


class ContribOps:
    """Writes the steps of a layer into a graph, with the graph inputs and outputs that they need.

    Args:
        graph: Where to.
        config: Shape of the model.
        weights: Where the tensors come from.
        block_size: Longest block of int8 and int4 weights that share a scale.

    Attributes:
        opsets: Domain → version the operators are of.
        linear: Writes a linear layer.
    """

    opsets: ClassVar[Mapping[str, int]] = MappingProxyType({"": 21, CONTRIB: 1})

    def __init__(self, graph: GraphWriter, config: DecoderConfig, weights: Weights, block_size: int) -> None:
        self.graph = graph
        self.config = config
        self.weights = weights
        self.linear = LinearWriter(graph, weights, block_size)
        self.position_ids = graph.input("position_ids", ir.DataType.INT64, [1, "sequence"])
        self.lengths = (
            graph.input("seqlens_k", ir.DataType.INT32, [1]),
            graph.input("total_sequence_length", ir.DataType.INT32, []),
        )

    def norm(self, name: str, x: ir.Value) -> ir.Value:
        """RMS norm of x."""
        return self.graph.op(
            "SimplifiedLayerNormalization", name, [x, self._gain(name)], axis=-1, epsilon=self.config.rms_norm_eps
        )

    def add_norm(self, name: str, x: ir.Value, residual: ir.Value) -> tuple[ir.Value, ir.Value]:
        """RMS norm of x + residual, and that sum."""
        normed, _, _, total = self.graph.op_multi_out(
            "SkipSimplifiedLayerNormalization",
            name,
            [x, residual, self._gain(name)],
            [name, "", "", f"{name}.sum"],
            domain=CONTRIB,
            epsilon=self.config.rms_norm_eps,
        )
        return normed, total

    def split(self, name: str, x: ir.Value, widths: Mapping[str, int]) -> Sequence[ir.Value]:
        """Cut the last axis of x into named parts of the given widths."""
        sizes = list(widths.values())
        constant = self.graph.constant(f"widths_{'_'.join(map(str, sizes))}", sizes, np.int64)
        return self.graph.op_multi_out("Split", name, [x, constant], [f"{name}.{part}" for part in widths], axis=-1)

    def rotate(self, name: str, x: ir.Value) -> ir.Value:
        """Rotary embedding of [1, S, heads·head_dim] at the graph's position ids."""
        # GroupQueryAttention's own (do_rotary=1) silently ignores position ids in prefill.
        shape = [self.config.max_positions, self.config.head_dim // 2]
        tables = [
            self.graph.weight(f"rotary.{function.__name__}", ir.DataType.FLOAT, shape, partial(self._table, function))
            for function in (np.cos, np.sin)
        ]
        return self.graph.op("RotaryEmbedding", name, [x, self.position_ids, *tables], domain=CONTRIB)

    def attend(self, name: str, layer: int, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        """Append key and value to the layer's cache, and attend causally to all of it."""

        def shape(length: str) -> list[int | str]:
            return [1, self.config.num_kv_heads, length, self.config.head_dim]

        past = [
            self.graph.input(f"past_key_values.{layer}.{kind}", ir.DataType.FLOAT, shape("past"))
            for kind in ("key", "value")
        ]
        output, *present = self.graph.op_multi_out(
            "GroupQueryAttention",
            name,
            [query, key, value, *past, *self.lengths],
            [name, f"present.{layer}.key", f"present.{layer}.value"],
            domain=CONTRIB,
            num_heads=self.config.num_heads,
            kv_num_heads=self.config.num_kv_heads,
            scale=self.config.head_dim**-0.5,
        )
        for tensor in present:
            self.graph.output(tensor, ir.DataType.FLOAT, shape("total"))
        return output

    def swiglu(self, name: str, gate: ir.Value, up: ir.Value) -> ir.Value:
        """SiLU(gate) · up."""
        silu = self.graph.op("QuickGelu", f"{name}.silu", [gate], domain=CONTRIB, alpha=1.0)
        return self.graph.op("Mul", name, [silu, up])

    def last_token(self, name: str, x: ir.Value) -> ir.Value:
        """[1, S, width] to its last token, [1, 1, width]."""
        return self.graph.op("Gather", name, [x, self.graph.constant("last", [-1], np.int64)], axis=1)

    def _gain(self, norm: str) -> ir.Value:
        weight = self.weights.read(f"{norm}.weight", (self.config.hidden_size,))
        return self.graph.constant(f"{norm}.weight", weight, np.float32)

    def _table(self, function: Callable[[NDArray], NDArray]) -> NDArray[np.float32]:
        # In float32 throughout, as the checkpoint was trained: at position 30000 its angles are off by 1e-3 radians.
        dim = self.config.head_dim
        frequencies = 1 / np.float32(self.config.rope_theta) ** (np.arange(0, dim, 2, dtype=np.float32) / dim)
        return function(np.arange(self.config.max_positions, dtype=np.float32)[:, None] * frequencies)
