"""Half precision where it pays: the big matrix products of a traced vision graph, and nothing that decides.

The graph stays strongly typed: every conversion is a Cast, so that an engine has no precision to choose. What is
float16 are the products that visual tokens are made of, with their weights, biases and activation functions, and in a
compressor those that merge tokens. What stays float32: the residual stream, normalisations, softmax, the pooling head
with saliency and frame features, all that a compressor decides by, and the graph's inputs and outputs.

Half precision ends at 65,504. Whatever could be larger is clamped there, before a Cast and behind a product: an engine
would go on with infinity, and with NaN from the next softmax on.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevtc.errors import ExportError
from edgevtc.exporter.graphs import ancestors, array_of, constant, new_node

__all__ = ["DTYPES", "LARGEST", "to_float16"]

#: What the big products of vision graphs may be computed in.
DTYPES = ("float32", "float16")

#: Largest finite number in half precision.
LARGEST = 65504.0

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16

#: What visual tokens are called in an encoder's graph, and in one that ends in a compressor.
TOKENS = ("frame_tokens", "tokens")


#: Operators that are float16 where all that they read is.
FOLLOWING = frozenset(("Concat", "Gelu", "Identity", "Mul", "Relu", "Reshape", "Sigmoid", "Slice", "Split", "Squeeze"))
FOLLOWING |= {"Tanh", "Transpose", "Unsqueeze"}

#: Operators that hand tokens on, up to the product that merges them.
HANDING_ON = frozenset(("Cast", "Clip", "Concat", "Expand", "Gather", "Identity", "MatMul", "Pad", "Reshape"))
HANDING_ON |= {"ScatterND", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Where"}


def to_float16(model: ir.Model) -> ir.Model:
    """A graph with its big products in half precision; the given one stays as it is.

    Args:
        model: An encoder or a compressor as traced in float32; a compressor's products are those that merge tokens.
            Products of dequantized values keep their type.

    Raises:
        ExportError: A weight has no half-precision form.
    """
    model = model.clone()
    graph = model.graph
    _drop_needless_casts(graph)
    half = _half_nodes(graph)
    half |= {clip for node in list(graph) if node in half and (clip := _clamped(graph, node, half)) is not None}
    produced = {value for node in half for value in node.outputs}
    casts: dict[ir.Value, ir.Value] = {}
    for index, value in enumerate(graph.outputs):
        if value in produced:
            cast, output = new_node("Cast", f"{value.name}.float32", [value], FLOAT, to=FLOAT)
            value.name, output.name = f"{value.name}.float16", value.name
            producer = value.producer()
            assert producer is not None
            graph.insert_after(producer, cast)
            graph.outputs[index] = casts[value] = output
            half.add(cast)
    for node in list(graph):
        for index, source in enumerate(node.inputs):
            if source is None or source.dtype != FLOAT:
                continue
            if node in half and source not in produced:
                node.replace_input_with(index, _as_half(graph, node, source, casts))
            elif node not in half and source in produced:
                if source not in casts:
                    cast, casts[source] = new_node("Cast", f"{source.name}.float32", [source], FLOAT, to=FLOAT)
                    graph.insert_before(node, cast)
                node.replace_input_with(index, casts[source])
    for value in produced:
        value.type = ir.TensorType(FLOAT16)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
    return model


def _half_nodes(graph: ir.Graph) -> set[ir.Node]:
    tokens = ancestors(value for value in graph.outputs if value.name in TOKENS)
    given = {value for value in graph.inputs if value.name in TOKENS}
    merges = bool(given)  # a compressor: its other outputs are decisions; of its products, only those of tokens
    if merges:
        tokens -= ancestors(value for value in graph.outputs if value.name not in TOKENS)
    half: set[ir.Node] = set()
    for node in graph:
        given_to = [value for value in node.inputs if value is not None and value.dtype == FLOAT]
        data = [value for value in given_to if not value.is_initializer()]
        if given.intersection(data) and node.op_type in HANDING_ON:
            given.update(node.outputs)
        if node not in tokens or not data:
            continue
        followed = [value.producer() in half for value in data]
        if node.op_type == "MatMul":
            dequantized = any(p is not None and p.op_type == "DequantizeLinear" for p in map(ir.Value.producer, data))
            take = not dequantized and (not merges or bool(given.intersection(data)))
        elif node.op_type == "Add":  # a bias; two streams are added in float32
            take = followed == [True] and any(len(value.shape or ()) == 1 for value in given_to)
        else:
            take = node.op_type in FOLLOWING and all(followed)
        if take:
            half.add(node)
    return half


def _users(node: ir.Node) -> set[ir.Node]:
    return {user for value in node.outputs for user, _ in value.uses()}


def _clamped(graph: ir.Graph, node: ir.Node, half: set[ir.Node]) -> ir.Node | None:
    """Clamp what a product gives, its bias added; averages by a softmax cannot grow."""
    left = node.inputs[0].producer() if node.op_type == "MatMul" and node.inputs[0] is not None else None
    if node.op_type != "MatMul" or (left is not None and left.op_type == "Softmax"):
        return None
    users = _users(node)
    end = next(iter(users)) if len(users) == 1 else node
    end = end if end in half and end.op_type == "Add" else node
    value = end.outputs[0]
    clip, clamped = new_node("Clip", f"{value.name}.clamped", [value, *_limits(graph)], FLOAT)
    value.replace_all_uses_with(clamped, replace_graph_outputs=True)
    clip.replace_input_with(0, value)
    if clamped.is_graph_output():
        value.name, clamped.name = f"{value.name}.unclamped", value.name
    graph.insert_after(end, clip)
    return clip


def _limits(graph: ir.Graph) -> list[ir.Value]:
    limits = {"float16_lowest": -LARGEST, "float16_largest": LARGEST}
    return [constant(graph, name, np.array(value, np.float32)) for name, value in limits.items()]


def _as_half(graph: ir.Graph, node: ir.Node, value: ir.Value, casts: dict[ir.Value, ir.Value]) -> ir.Value:
    """A float32 value in half precision, for a node that reads it: a weight converted, all else clamped and cast."""
    if value in casts:
        return casts[value]
    array = array_of(value)
    if array is not None:
        if not np.abs(array).max(initial=0) <= LARGEST:
            reason = f"weight {value.name} has values beyond {LARGEST:.0f}, where float16 ends"
            raise ExportError(f"{reason}: export with --dtype float32")
        casts[value] = constant(graph, f"{value.name}.float16", array.astype(np.float16))
        return casts[value]
    source = value
    if not _is_bounded(value):
        clip, source = new_node("Clip", f"{value.name}.clamped", [value, *_limits(graph)], FLOAT)
        graph.insert_before(node, clip)
    cast, casts[value] = new_node("Cast", f"{value.name}.float16", [source], FLOAT16, to=FLOAT16)
    graph.insert_before(node, cast)
    return casts[value]


def _is_bounded(value: ir.Value) -> bool:
    """Whether a value cannot leave half precision, whatever the video."""
    node = value.producer()
    if node is None or node.op_type != "LayerNormalization":
        return node is not None and node.op_type == "Softmax"
    weight, bias = array_of(node.inputs[1]), array_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1)
    if weight is None or bias is None:
        return False
    # A normalised vector of d values has the length √d, so none of them is larger.
    return bool(np.abs(weight).max() * weight.size**0.5 + np.abs(bias).max() <= LARGEST)


def _drop_needless_casts(graph: ir.Graph) -> None:
    """The tracer leaves conversions from float32 to float32 where a program states what it computes in."""
    for node in list(graph):
        if node.op_type == "Cast" and node.inputs[0] is not None and node.inputs[0].dtype == node.outputs[0].dtype:
            if node.outputs[0].is_graph_output():
                continue
            node.outputs[0].replace_all_uses_with(node.inputs[0])
            graph.remove(node, safe=True)
