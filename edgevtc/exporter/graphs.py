"""Small questions about a traced graph, and small changes to it, that passes over it share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["ancestors", "array_of", "constant", "new_node"]


def ancestors(values: Iterable[ir.Value]) -> set[ir.Node]:
    """The nodes that values depend on."""
    found: set[ir.Node] = set()
    waiting = [value.producer() for value in values]
    while waiting:
        node = waiting.pop()
        if node is None or node in found:
            continue
        found.add(node)
        waiting += (value.producer() for value in node.inputs if value is not None)
    return found


def array_of(value: ir.Value | None) -> NDArray | None:
    """The content of an initializer, None for anything else."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return value.const_value.numpy()


def constant(graph: ir.Graph, name: str, array: NDArray) -> ir.Value:
    """A new initializer, or the one of this name where there is one already."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        graph.register_initializer(
            ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        )
    return graph.initializers[name]


def new_node(
    op_type: str, name: str, inputs: Sequence[ir.Value], dtype: ir.DataType, **attributes: int
) -> tuple[ir.Node, ir.Value]:
    """A node of one output, which has the shape of the first input; and that output."""
    output = ir.Value(name=name, shape=inputs[0].shape, type=ir.TensorType(dtype))
    return ir.node(op_type, inputs, attributes=attributes, outputs=[output], name=name), output
