"""The graph contract: what a graph must keep to so that every backend can build it.

Each rule stands for something an engine builder refuses, or does silently otherwise than meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from edgevtc.errors import ConfigError, ExportError, choices
from edgevtc.methods import NEEDS

__all__ = ["GRAPH_KINDS", "Breach", "check_graph", "require_contract"]

#: TensorRT's own limit.
LARGEST_TOPK = 3840

#: Newer ones are not read by TensorRT 10.3 and ONNX Runtime 1.23.
NEWEST_OPSET = 21
NEWEST_IR_VERSION = 10

_DATA_DEPENDENT = "the shape of its output depends on the data"
_RANDOM = "engines ignore its seed, so results cannot be repeated"
_SEQUENCE = "engines have no sequences"

#: Operator → why no graph may hold it.
BANNED_OPS = {
    "Bernoulli": _RANDOM,
    "Compress": _DATA_DEPENDENT,
    "ConcatFromSequence": _SEQUENCE,
    "CumSum": "engines run it as a sequential loop: multiply by a triangular matrix",
    "Det": "TensorRT has no such layer",
    "Multinomial": _RANDOM,
    "NonZero": _DATA_DEPENDENT,
    "RandomNormal": _RANDOM,
    "RandomNormalLike": _RANDOM,
    "RandomUniform": _RANDOM,
    "RandomUniformLike": _RANDOM,
    "SequenceAt": _SEQUENCE,
    "SequenceConstruct": _SEQUENCE,
    "SequenceEmpty": _SEQUENCE,
    "SequenceErase": _SEQUENCE,
    "SequenceInsert": _SEQUENCE,
    "SequenceLength": _SEQUENCE,
    "SequenceMap": _SEQUENCE,
    "SplitToSequence": _SEQUENCE,
    "StringNormalizer": "engines have no strings",
    "Unique": _DATA_DEPENDENT,
}

#: Operator → types of its input for which ONNX Runtime has no CUDA kernel.
_LEFT_TO_CPU = {
    "Clip": (ir.DataType.INT32,),
    "Pad": (ir.DataType.INT32, ir.DataType.INT64),
}

_FLOAT64 = "float64 has no place in a graph: engines cast it away or refuse it"
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


_Types = Mapping[str, tuple[ir.DataType, ...]]


@dataclass(frozen=True)
class Kind:
    """Inputs and outputs of a kind of graph: name → admissible types; the required ones must all be there."""

    inputs: _Types
    required_inputs: tuple[str, ...]
    outputs: _Types
    required_outputs: tuple[str, ...]


_FRAMES: _Types = {"frames": (ir.DataType.UINT8,)}
_FEATURES: _Types = dict.fromkeys(NEEDS, _FLOATS)
_REDUCED: _Types = {
    "tokens": _FLOATS,
    "positions": (ir.DataType.INT32,),
    "counts": (ir.DataType.INT32,),
    "assignment": (ir.DataType.INT32,),
}
#: Of methods that divide the clip.
_SEGMENTED: _Types = {**_REDUCED, "segments": (ir.DataType.INT32,)}
_KINDS = {
    "vision": Kind(_FRAMES, ("frames",), _SEGMENTED, tuple(_REDUCED)),
    "encoder": Kind(_FRAMES, ("frames",), _FEATURES, ("frame_tokens",)),
    "compressor": Kind(_FEATURES, ("frame_tokens",), _SEGMENTED, tuple(_REDUCED)),
}

#: Kinds of graphs the contract covers: the fused one, the encoder alone, a compressor alone.
GRAPH_KINDS = tuple(_KINDS)


@dataclass(frozen=True)
class Breach:
    """One breach of the contract.

    Attributes:
        rule: Short name of the rule.
        node: Name of the node, input, output or initializer.
        reason: What is wrong and why it matters.
    """

    rule: str
    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason} [{self.rule}]"


def check_graph(model: ir.Model, kind: str, *, capturable: bool = True) -> list[Breach]:
    """Every breach of the graph contract, in graph order; subgraphs and functions are looked into.

    Args:
        model: The graph, with shapes on its values.
        kind: One of :data:`GRAPH_KINDS`.
        capturable: Whether a backend is to capture the graph as a whole, which rules control flow out.

    Raises:
        ConfigError: The kind is unknown.
    """
    if kind not in _KINDS:
        raise ConfigError(f"graph kind {kind!r} is not valid: {choices(GRAPH_KINDS)}")
    breaches = [*_check_versions(model), *_check_interface(model.graph, _KINDS[kind]), *_check_initializers(model)]
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for body in bodies:
        for node in RecursiveGraphIterator(body):
            name = node.name or f"{node.op_type} of {node.outputs[0].name}"
            if node.domain not in ("", "ai.onnx"):
                if node.op_identifier() not in model.functions:
                    reason = f"{node.domain}.{node.op_type} is not an ONNX operator, engines have no plugin for it"
                    breaches.append(Breach("standard-ops", name, reason))
                continue
            for rule, find in _NODE_RULES.items():
                # Values inside a function have no shapes until it is inlined.
                skipped = (rule == "control-flow" and not capturable) or (
                    rule == "static-shapes" and isinstance(body, ir.Function)
                )
                breaches += () if skipped else (Breach(rule, name, reason) for reason in find(node))
    return breaches


def require_contract(model: ir.Model, kind: str, *, capturable: bool = True) -> None:
    """Raise unless a graph keeps the contract; arguments as :func:`check_graph`.

    Raises:
        ExportError: It does not; the message names the first breaches and their nodes.
    """
    if breaches := check_graph(model, kind, capturable=capturable):
        shown = "; ".join(str(breach) for breach in breaches[:5])
        more = f"; and {len(breaches) - 5} more" if len(breaches) > 5 else ""
        raise ExportError(f"graph {model.graph.name!r} breaks the {kind} graph contract: {shown}{more}")


def _check_versions(model: ir.Model) -> Iterator[Breach]:
    name = str(model.graph.name)
    opset = model.graph.opset_imports.get("", 0)
    if opset > NEWEST_OPSET:
        yield Breach("versions", name, f"opset {opset} is newer than {NEWEST_OPSET}, the newest all runtimes read")
    if model.ir_version > NEWEST_IR_VERSION:
        yield Breach("versions", name, f"IR version {model.ir_version} is newer than {NEWEST_IR_VERSION}")


def _check_interface(graph: ir.Graph, kind: Kind) -> Iterator[Breach]:
    for values, known, required, word in (
        (graph.inputs, kind.inputs, kind.required_inputs, "input"),
        (graph.outputs, kind.outputs, kind.required_outputs, "output"),
    ):
        names = [str(value.name) for value in values]
        if missing := [name for name in required if name not in names]:
            yield Breach("interface", str(graph.name), f"the {word} {', '.join(missing)} is missing")
        for name, value in zip(names, values, strict=True):
            if name not in known:
                yield Breach("interface", name, f"no {word} of this name is known: {choices(known)}")
            elif value.dtype not in known[name]:
                expected = choices(dtype.name for dtype in known[name])
                yield Breach("interface", name, f"the {word} has type {_type_name(value.dtype)}: {expected}")
            yield from (Breach("static-shapes", name, reason) for reason in _shape_reasons(value))


def _check_initializers(model: ir.Model) -> Iterator[Breach]:
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if value.dtype == ir.DataType.DOUBLE:
                yield Breach("float64", name, _FLOAT64)


# One function a rule: node → reasons.


def _static_shapes(node: ir.Node) -> Iterator[str]:
    yield from (reason for output in node.outputs if output.name for reason in _shape_reasons(output))


def _shape_reasons(value: ir.Value) -> Iterator[str]:
    if value.shape is None or not value.shape.is_static():
        found = "no known shape" if value.shape is None else f"shape {value.shape}"
        yield f"{value.name} has {found}, every size must be a constant"


def _banned_ops(node: ir.Node) -> Iterator[str]:
    if node.op_type in BANNED_OPS:
        yield f"{node.op_type} cannot be used: {BANNED_OPS[node.op_type]}"


def _control_flow(node: ir.Node) -> Iterator[str]:
    if node.op_type in ("If", "Loop", "Scan"):
        yield f"{node.op_type} cannot be captured: unroll it, or choose with Where"


def _scatter(node: ir.Node) -> Iterator[str]:
    if node.op_type not in ("ScatterElements", "ScatterND"):
        return
    reduction = node.attributes.get_string("reduction", "none")
    if reduction != "none":
        yield f"{node.op_type} with reduction {reduction!r} is refused: multiply by a one-hot matrix"
    data, indices = (value.shape if value is not None else None for value in node.inputs[:2])
    if node.op_type == "ScatterElements" and data is not None and indices is not None:
        sizes = zip(indices, data, strict=False)
        if any(isinstance(i, int) and isinstance(d, int) and i > d for i, d in sizes):
            yield f"indices of shape {indices} exceed the data's {data}: only a permutation is taken"


def _topk(node: ir.Node) -> Iterator[str]:
    if node.op_type != "TopK":
        return
    k = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    if k is None:
        yield "k must be a constant"
    elif (count := int(k.numpy().item())) > LARGEST_TOPK:
        yield f"k is {count}, engines take at most {LARGEST_TOPK}"


def _argmax_rank(node: ir.Node) -> Iterator[str]:
    if node.op_type in ("ArgMax", "ArgMin") and node.inputs[0] is not None:
        shape = node.inputs[0].shape
        if shape is not None and len(shape) < 2:
            yield f"{node.op_type} over rank {len(shape)}, engines take rank 2 and more"


def _integer_kernels(node: ir.Node) -> Iterator[str]:
    dtype = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
    if dtype in _LEFT_TO_CPU.get(node.op_type, ()):
        yield f"{node.op_type} of {_type_name(dtype)} has no CUDA kernel in ONNX Runtime: take Max and Min, or Concat"


def _uint8(node: ir.Node) -> Iterator[str]:
    values = [*node.outputs, *(node.inputs if node.op_type != "Cast" else ())]
    if any(value is not None and value.dtype == ir.DataType.UINT8 for value in values):
        yield f"{node.op_type} with uint8: engines take uint8 as an input and can only cast it"


def _float64(node: ir.Node) -> Iterator[str]:
    # Where it begins is where it is mended; what follows would bury that.
    if any(value is not None and value.dtype == ir.DataType.DOUBLE for value in node.inputs):
        return
    attributes = node.attributes.values()
    if (
        any(value.dtype == ir.DataType.DOUBLE for value in node.outputs)
        or any(a.type == ir.AttributeType.TENSOR and a.as_tensor().dtype == ir.DataType.DOUBLE for a in attributes)
        or any(node.attributes.get_int(name, None) == ir.DataType.DOUBLE for name in ("to", "dtype"))
    ):
        yield _FLOAT64


_NODE_RULES: dict[str, Callable[[ir.Node], Iterator[str]]] = {
    "static-shapes": _static_shapes,
    "banned-ops": _banned_ops,
    "control-flow": _control_flow,
    "scatter": _scatter,
    "topk": _topk,
    "argmax-rank": _argmax_rank,
    "integer-kernels": _integer_kernels,
    "uint8": _uint8,
    "float64": _float64,
}


def _type_name(dtype: ir.DataType | None) -> str:
    return "unknown" if dtype is None else dtype.name
