"""What a decoder graph is declared with, whatever its operators: named nodes, and weights read as they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from edgevtc import __version__
from edgevtc.errors import ExportError

__all__ = ["CONTRIB", "GraphWriter", "Weights"]

#: Domain of ONNX Runtime's own operators.
CONTRIB = "com.microsoft"

#: The newest IR version that ONNX Runtime 1.23 reads, the last release for Python 3.10.
IR_VERSION = 10


class Weights:
    """A checkpoint's tensors, read one at a time and checked.

    Args:
        tensors: Name without prefix (``layers.0.self_attn.q_proj.weight``) → anything numpy can hold. A mapping that
            reads on access keeps an export's peak memory at a few tensors.
    """

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.tensors = tensors
        # A lazy mapping's own "in" may read the tensor.
        self.names = frozenset(tensors)

    def require(self, name: str) -> None:
        """Fail now, before anything is written, where a tensor is missing."""
        if name not in self.names:
            raise ExportError(f"the checkpoint has no tensor {name!r}: give a complete checkpoint of the model")

    def read(self, name: str, shape: tuple[int, ...]) -> NDArray:
        """The tensor in the floating-point width it is stored in."""
        self.require(name)
        array = np.asarray(self.tensors[name])
        if array.shape != shape:
            raise ExportError(
                f"tensor {name!r} has shape {list(array.shape)} where the config asks for {list(shape)}: "
                "take config.json and weights from the same checkpoint"
            )
        return array


class GraphWriter:
    """Collects the inputs, outputs, nodes and initializers of one graph, in order."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.initializers: dict[str, ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """Declare an input of the graph."""
        self.inputs.append(ir.val(name, dtype, shape))
        return self.inputs[-1]

    def output(self, value: ir.Value, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        """Declare a value to be an output of the graph, under the name it has."""
        value.dtype, value.shape = dtype, ir.Shape(shape)
        self.outputs.append(value)

    def op(
        self, op_type: str, name: str, inputs: Sequence[ir.Value | None], domain: str = "", **attributes: Any
    ) -> ir.Value:
        """Add a node of one output; node and output are both called ``name``."""
        return self.tape.op(op_type, inputs, attributes, domain=domain, name=name, output=ir.Value(name=name))

    def op_multi_out(
        self,
        op_type: str,
        name: str,
        inputs: Sequence[ir.Value | None],
        outputs: Sequence[str],
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Add a node whose outputs have names of their own; "" stands for one that is not asked for."""
        values = [ir.Value(name=output) for output in outputs]
        return self.tape.op_multi_out(op_type, inputs, attributes, domain=domain, name=name, outputs=values)

    def constant(self, name: str, value: Any, dtype: type[np.generic]) -> ir.Value:
        """A small initializer, shared by all who ask for its name."""
        if name not in self.initializers:
            self.initializers[name] = self.tape.initializer(ir.tensor(np.asarray(value, dtype), name=name))
        return self.initializers[name]

    def weight(self, name: str, dtype: ir.DataType, shape: Sequence[int], load: Callable[[], NDArray]) -> ir.Value:
        """A large initializer, whose bytes are made whenever they are written, and not kept; shared like a constant."""
        if name not in self.initializers:
            tensor = ir.LazyTensor(
                lambda: ir.tensor(np.ascontiguousarray(load(), dtype.numpy())), dtype, ir.Shape(shape), name=name
            )
            self.initializers[name] = self.tape.initializer(tensor)
        return self.initializers[name]

    def model(self, name: str, opsets: Mapping[str, int]) -> ir.Model:
        """The finished model."""
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self.tape.nodes,
            initializers=self.tape.initializers,
            opset_imports=dict(opsets),
            name=name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="edgevtc", producer_version=__version__)
