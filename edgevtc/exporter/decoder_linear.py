"""Linear layers of a decoder in ONNX Runtime's kernels for fp32, int8, w8a8 and int4 weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevtc.exporter.decoder_graph import CONTRIB, GraphWriter, Weights
from edgevtc.exporter.quantize import block_length, quantize_blocks, quantize_rows

__all__ = ["Linear", "LinearWriter"]

#: MatMulNBits computes with 8-bit activations, one scale a block; in float32 (level 0) it decodes 4 to 50 times slower.
ACCURACY_LEVEL = 4

#: Activation codes of w8a8 are unsigned, ±127 around this value.
ACTIVATION_ZERO = 128
ACTIVATION_STEP = 1 / 127

#: Largest weight code of w8a8. x86 without VNNI adds two u8·s8 products in 16 bits and saturates silently, with
#: ordinary weights too; 2 · 255 · 64 = 32640 fits, so that every CPU computes the same numbers. On a trained model
#: the lost bit is not to be seen beside the rounding of the activations.
LARGEST_ROW_CODE = 64

#: Below this a token's activations count as zeros.
SMALLEST_ACTIVATION = 1e-8


@dataclass(frozen=True)
class Linear:
    """A linear layer, or several over the same input, fused along their outputs.

    Attributes:
        name: Name of its node and of the node's output.
        parts: The checkpoint's name of each part, without ``.weight``, and its output features, in order.
        columns: Input features.
        weight_format: fp32, int8, w8a8 or int4.
        bias: Whether the parts have a ``.bias``.
    """

    name: str
    parts: Mapping[str, int]
    columns: int
    weight_format: str
    bias: bool = False

    @property
    def rows(self) -> int:
        """Output features of all parts."""
        return sum(self.parts.values())


class LinearWriter:
    """Writes linear layers, their quantized weights among them, into a graph.

    Args:
        graph: Where to.
        weights: Where the parts' tensors come from.
        block_size: Longest block of int8 and int4 weights that share a scale.
    """

    def __init__(self, graph: GraphWriter, weights: Weights, block_size: int) -> None:
        self.graph = graph
        self.weights = weights
        self.block_size = block_size
        # Codes and scales are two initializers of one quantization: the last one is kept, so that it is done once.
        self.quantized: tuple[str, tuple[NDArray, NDArray]] = "", (np.empty(0), np.empty(0))

    def __call__(self, layer: Linear, x: ir.Value) -> ir.Value:
        """x [1, S, columns] times the parts' weights transposed, plus their biases: [1, S, rows]."""
        for part in layer.parts:
            self.weights.require(f"{part}.weight")
        match layer.weight_format:
            case "fp32":
                return self._dense(layer, x)
            case "w8a8":
                return self._by_row(layer, x)
            case "int8":
                return self._by_block(layer, x, bits=8)
            case "int4":
                return self._by_block(layer, x, bits=4)
        raise ValueError(f"unknown weight format {layer.weight_format!r}")

    def _dense(self, layer: Linear, x: ir.Value) -> ir.Value:
        def load() -> NDArray:
            return np.concatenate([np.asarray(part, np.float32) for part in self._read(layer)]).T

        shape = [layer.columns, layer.rows]
        weight = self.graph.weight(f"{layer.name}.weight", ir.DataType.FLOAT, shape, load)
        return self._with_bias(layer, "MatMul", [x, weight])

    def _by_block(self, layer: Linear, x: ir.Value, bits: int) -> ir.Value:
        block = block_length(layer.columns, self.block_size)
        blocks = -(-layer.columns // block)
        load = self._quantizer(layer, partial(quantize_blocks, bits=bits, block=block))
        codes, scales = self._codes_and_scales(
            layer,
            ir.DataType.UINT8,
            ([layer.rows, blocks, block * bits // 8], lambda: load()[0]),
            ([layer.rows, blocks], lambda: load()[1]),
        )
        return self.graph.op(
            "MatMulNBits",
            layer.name,
            [x, codes, scales, *([None, None, self._bias(layer)] if layer.bias else [])],
            domain=CONTRIB,
            K=layer.columns,
            N=layer.rows,
            bits=bits,
            block_size=block,
            accuracy_level=ACCURACY_LEVEL,
        )

    def _by_row(self, layer: Linear, x: ir.Value) -> ir.Value:
        # One activation scale per token, where DynamicQuantizeMatMul has one per call: a token's result then depends
        # on no other token, and so not on how the prompt is cut into chunks.
        graph, name = self.graph, layer.name
        magnitude = graph.op("Abs", f"{name}.magnitude", [x])
        largest = graph.op("ReduceMax", f"{name}.largest", [magnitude, graph.constant("last", [-1], np.int64)])
        smallest = graph.constant("smallest_activation", SMALLEST_ACTIVATION, np.float32)
        largest = graph.op("Max", f"{name}.scale", [largest, smallest])
        scaled = graph.op("Div", f"{name}.scaled", [x, largest])
        step = graph.constant("activation_step", ACTIVATION_STEP, np.float32)
        zero = graph.constant("activation_zero", ACTIVATION_ZERO, np.uint8)
        activation = graph.op("QuantizeLinear", f"{name}.quantized", [scaled, step, zero])
        load = self._quantizer(layer, partial(quantize_rows, largest=LARGEST_ROW_CODE))
        codes, scales = self._codes_and_scales(
            layer,
            ir.DataType.INT8,
            ([layer.columns, layer.rows], lambda: load()[0].T),
            ([layer.rows], lambda: load()[1]),
        )
        inputs = [activation, codes, step, scales, zero]
        product = graph.op("MatMulIntegerToFloat", f"{name}.product", inputs, domain=CONTRIB)
        return self._with_bias(layer, "Mul", [product, largest])

    def _quantizer(
        self, layer: Linear, quantize: Callable[[NDArray], tuple[NDArray, NDArray]]
    ) -> Callable[[], tuple[NDArray, NDArray]]:
        """The layer's codes and scales, parts stacked, on demand."""

        def load() -> tuple[NDArray, NDArray]:
            if self.quantized[0] != layer.name:
                codes, scales = zip(*(quantize(part) for part in self._read(layer)), strict=True)
                self.quantized = layer.name, (np.concatenate(codes), np.concatenate(scales))
            return self.quantized[1]

        return load

    def _codes_and_scales(
        self,
        layer: Linear,
        dtype: ir.DataType,
        codes: tuple[Sequence[int], Callable[[], NDArray]],
        scales: tuple[Sequence[int], Callable[[], NDArray]],
    ) -> tuple[ir.Value, ir.Value]:
        return (
            self.graph.weight(f"{layer.name}.weight.codes", dtype, *codes),
            self.graph.weight(f"{layer.name}.weight.scales", ir.DataType.FLOAT, *scales),
        )

    def _read(self, layer: Linear) -> list[NDArray]:
        return [self.weights.read(f"{part}.weight", (rows, layer.columns)) for part, rows in layer.parts.items()]

    def _bias(self, layer: Linear) -> ir.Value:
        parts = [self.weights.read(f"{part}.bias", (rows,)) for part, rows in layer.parts.items()]
        return self.graph.constant(f"{layer.name}.bias", np.concatenate(parts), np.float32)

    def _with_bias(self, layer: Linear, op_type: str, inputs: Sequence[ir.Value]) -> ir.Value:
        """The last node of the layer, which has its name: this op, or the addition of the bias to it."""
        if not layer.bias:
            return self.graph.op(op_type, layer.name, inputs)
        unbiased = self.graph.op(op_type, f"{layer.name}.unbiased", inputs)
        return self.graph.op("Add", layer.name, [unbiased, self._bias(layer)])
