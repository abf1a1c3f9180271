"""The vision encoder in int8: weights by output channel, activations by tensor, both scales fixed at export.

The form is ONNX's own, QuantizeLinear and DequantizeLinear around MatMul: ONNX Runtime computes it as one int8 product
with float32 output, and engines have int8 kernels for it. A few channels of a vision tower's activations are many times
larger than the others, and one scale for all would leave the others a few codes. So part of their size is moved into
the weights first, after SmoothQuant (Xiao et al. 2023, equation 4): behind a layer normalisation x·W = (x/s)·(s·W)
costs nothing, for the normalisation's own weights take the division.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevtc.exporter.graphs import ancestors, array_of, constant, new_node
from edgevtc.exporter.quantize import quantize_rows

__all__ = ["ENCODER_FORMATS", "quantizable", "quantize_encoder"]

#: What an encoder's products may be: as its dtype says, or int8.
ENCODER_FORMATS = ("float", "w8a8")

#: Largest weight code. Without VNNI, x86 adds two u8·s8 products in 16 bits and saturates silently; 2·255·64 fits.
LARGEST_WEIGHT_CODE = 64

#: Largest activation code.
LARGEST_ACTIVATION_CODE = 127

#: α of SmoothQuant: how much of the activations' spread moves to the weights.
SMOOTHING = 0.5

#: Below this a channel counts as silent.
SMALLEST = 1e-5

FLOAT, INT8 = ir.DataType.FLOAT, ir.DataType.INT8


def quantizable(graph: ir.Graph) -> list[tuple[str, ir.Node]]:
    """Weights, and the products of activations with them, of those that visual tokens are made of.

    The product that sees the pixels is left out: it is a hundredth of the work, and what it rounds all layers see. So
    is the pooling head, by which compressors decide.
    """
    tokens = ancestors(value for value in graph.outputs if value.name == "frame_tokens")
    found: list[tuple[str, ir.Node]] = []
    normalised: set[ir.Value] = set()
    for node in graph:
        behind = node.op_type == "LayerNormalization" or bool(normalised.intersection(node.inputs))
        if behind:
            normalised.update(node.outputs)
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if node in tokens and node.op_type == "MatMul" and behind and weight is not None and weight.is_initializer():
            found.append((str(weight.name), node))
    return found


def quantize_encoder(model: ir.Model, largest: Mapping[str, NDArray[np.float32]]) -> ir.Model:
    """An encoder with int8 products; the given one stays as it is.

    Args:
        model: As traced.
        largest: Weight → [K] largest magnitude of each of the product's input channels, see
            :func:`edgevtc.exporter.calibrate.largest_activations`; the products in it are quantized.
    """
    model = model.clone()
    graph = model.graph
    for name, node in quantizable(graph):
        if name in largest:
            _quantize(graph, node, np.maximum(largest[name], SMALLEST))
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
    return model


def _quantize(graph: ir.Graph, node: ir.Node, largest: NDArray[np.float32]) -> None:
    x, weight = node.inputs
    matrix = array_of(weight)
    assert x is not None and weight is not None and matrix is not None
    if (factors := _smoothing(x, largest, matrix)) is not None:
        _divide_normalisation(graph, x, factors)
        largest, matrix = largest / factors, matrix * factors[:, None]
    name = str(weight.name)
    codes, scales = quantize_rows(matrix.T, LARGEST_WEIGHT_CODE)
    step = np.array(largest.max() / LARGEST_ACTIVATION_CODE, np.float32)
    x_step, x_zero = constant(graph, f"{name}.input_scale", step), constant(graph, "int8_zero", np.array(0, np.int8))
    quantize, x_codes = new_node("QuantizeLinear", f"{name}.input_codes", [x, x_step, x_zero], INT8)
    restore, x_values = new_node("DequantizeLinear", f"{name}.input", [x_codes, x_step, x_zero], FLOAT)
    w_inputs = [constant(graph, f"{name}.codes", codes.T), constant(graph, f"{name}.scales", scales)]
    restore_weight, w_values = new_node("DequantizeLinear", f"{name}.values", w_inputs, FLOAT, axis=1)
    graph.insert_before(node, [quantize, restore, restore_weight])
    node.replace_input_with(0, x_values)
    node.replace_input_with(1, w_values)
    _keep_bias_apart(graph, node)


def _smoothing(x: ir.Value, largest: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """SmoothQuant's factor of each channel, or None where nothing before the product can take the division."""
    producer = x.producer()
    if producer is None or producer.op_type != "LayerNormalization" or len(x.uses()) > 1 or x.is_graph_output():
        return None
    factors = largest**SMOOTHING / np.maximum(np.abs(matrix).max(1), SMALLEST) ** (1 - SMOOTHING)
    return np.asarray(factors, np.float32)


def _divide_normalisation(graph: ir.Graph, x: ir.Value, factors: NDArray[np.float32]) -> None:
    node = x.producer()
    assert node is not None
    for index in range(1, len(node.inputs)):
        value = node.inputs[index]
        array = array_of(value)
        assert value is not None and array is not None
        # Normalisations may share a weight, so each gets one of its own.
        node.replace_input_with(index, constant(graph, f"{x.name}.{value.name}.smoothed", array / factors))


def _keep_bias_apart(graph: ir.Graph, node: ir.Node) -> None:
    """Give the bias the product's rank. ONNX Runtime makes a float32 Gemm of a product and a bias of rank 1, before it
    looks for quantized products."""
    for user, index in list(node.outputs[0].uses()):
        bias = array_of(user.inputs[1 - index]) if user.op_type == "Add" else None
        if bias is not None and bias.ndim == 1:
            value = user.inputs[1 - index]
            assert value is not None and node.outputs[0].shape is not None
            shape = [1] * (len(node.outputs[0].shape) - 1) + [bias.size]
            user.replace_input_with(1 - index, constant(graph, f"{value.name}.row", bias.reshape(shape)))
