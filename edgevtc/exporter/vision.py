"""Tracing the vision side into fixed-shape ONNX graphs: encoder, compressor, and both fused."""

from __future__ import annotations

import ast
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from traceback import extract_tb

import onnx_ir as ir
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    LiftConstantsToInitializersPass,
    NameFixPass,
    OutputFixPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
)
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn

from edgevtc.compressors import Compressor
from edgevtc.errors import ExportError
from edgevtc.models import Vision

__all__ = ["FRAMES", "OPSET", "export_compressor", "export_encoder", "export_fused", "fuse"]

#: Opset of the traced graphs: the first with Gelu, and within what TensorRT 10.3 and ONNX Runtime 1.23 read.
OPSET = 20

#: Input of the encoder and of the fused graph.
FRAMES = "frames"


def export_encoder(vision: Vision, frames_per_call: int, frames_per_slice: int | None = None) -> ir.Model:
    """Trace frames [C, H, W, 3] uint8 → the features the vision part was loaded for.

    Args:
        vision: The vision part; its `outputs` are the graph's.
        frames_per_call: C.
        frames_per_slice: Frames the tower takes at once inside the graph. Fewer frames bound the memory of its
            activations where attention is not fused, but each slice repeats the tower's nodes; all C where None.

    Raises:
        ExportError: The program cannot be traced.
    """
    module = _Encoder(vision, frames_per_slice or frames_per_call)
    return _trace(module, "encoder", {FRAMES: _frames(vision, frames_per_call)}, vision.outputs)


def export_compressor(
    compressor: Compressor, shapes: Mapping[str, Sequence[int]], dtype: torch.dtype = torch.float32
) -> ir.Model:
    """Trace a compressor alone: its needs → its outputs.

    They are tokens [B, D], positions [B], counts [B], assignment [T, N] and, where the method divides the clip,
    segments [T]; all but the tokens int32.

    Args:
        compressor: The program.
        shapes: Shapes of the features of a whole clip, see :meth:`edgevtc.models.Vision.feature_shapes`.
        dtype: Of `frame_tokens`; the other features are float32.

    Raises:
        ExportError: `shapes` lacks a feature the method needs, or the program cannot be traced.
    """
    _check_needs(compressor, shapes)
    inputs = {
        name: torch.zeros(*shapes[name], dtype=dtype if name == "frame_tokens" else torch.float32)
        for name in compressor.spec.needs
    }
    return _trace(_Compressor(compressor), compressor.spec.name, inputs, compressor.outputs)


def export_fused(vision: Vision, compressor: Compressor, frames_per_slice: int | None = None) -> ir.Model:
    """Trace frames [T, H, W, 3] uint8 → the compressor's outputs, see :func:`export_compressor`.

    For several compressors behind one encoder, trace each part once and :func:`fuse` them.

    Args:
        vision: The vision part.
        compressor: The program that follows it.
        frames_per_slice: See :func:`export_encoder`.

    Raises:
        ExportError: The vision part does not give what the method needs, or a program cannot be traced.
    """
    return fuse(
        export_encoder(vision, compressor.num_frames, frames_per_slice),
        export_compressor(compressor, vision.feature_shapes(compressor.num_frames)),
    )


def fuse(encoder: ir.Model, compressor: ir.Model) -> ir.Model:
    """Put a compressor's graph behind an encoder's that takes the whole clip; both stay as they are.

    The weights keep their names and bytes, so a store by content holds them once.

    Raises:
        ExportError: The encoder does not give what the compressor needs.
    """
    whole, tail = encoder.clone(), compressor.clone().graph
    given = {value.name: value for value in whole.graph.outputs}
    if missing := [value.name for value in tail.inputs if value.name not in given]:
        raise ExportError(f"method {tail.name} needs {missing[0]}, the encoder gives {', '.join(map(str, given))}")
    for value in tail.inputs:
        ir.convenience.replace_all_uses_with(value, given[value.name])
    outputs, nodes, constants = list(tail.outputs), list(tail), list(tail.initializers.values())
    inner = [value for node in nodes for value in node.outputs if not value.is_graph_output()]
    tail.outputs.clear()
    tail.initializers.clear()
    tail.remove(nodes)
    for value in [*inner, *constants]:
        value.name = f"compressor.{value.name}"
    for value in constants:
        whole.graph.register_initializer(value)
    whole.graph.extend(nodes)
    whole.graph.outputs[:] = outputs
    whole.graph.name = tail.name
    RemoveUnusedNodesPass()(whole)
    return whole


# A parameter's name in the graph is its path in the traced module. These wrappers give a weight the same path, and so
# the same name, in every graph.


class _Encoder(nn.Module):
    def __init__(self, vision: Vision, frames_per_slice: int) -> None:
        super().__init__()
        self.vision = vision
        self.frames_per_slice = frames_per_slice

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        if self.frames_per_slice == len(frames):
            return self.vision(frames)
        # Engines take uint8 as an input and can only cast it, not split it.
        slices = [self.vision(part) for part in frames.float().split(self.frames_per_slice)]
        return tuple(torch.cat(parts) for parts in zip(*slices, strict=True))


class _Compressor(nn.Module):
    def __init__(self, compressor: Compressor) -> None:
        super().__init__()
        self.compressor = compressor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.compressor(*inputs)


def _frames(vision: Vision, count: int) -> Tensor:
    geometry = vision.geometry
    return torch.zeros(count, geometry.image_height, geometry.image_width, 3, dtype=torch.uint8)


def _check_needs(compressor: Compressor, given: Sequence[str] | Mapping[str, Sequence[int]]) -> None:
    if missing := [name for name in compressor.spec.needs if name not in given]:
        raise ExportError(
            f"method {compressor.spec.name} needs {' and '.join(missing)}, the vision part gives {', '.join(given)}"
        )


def _trace(module: nn.Module, name: str, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> ir.Model:
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                optimize=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        # The error itself tells which step failed; its cause tells why.
        cause = error.__cause__ or error
        reason = str(cause).strip().splitlines()[0] + _place(cause)
        raise ExportError(f"{name} cannot be traced ({reason}): keep to fixed shapes and operators ONNX has") from error
    assert program is not None
    model = program.model
    model.graph.name = name
    with _quiet():
        _simplify(model)
    _separate_constant_outputs(model.graph)
    _name_nodes(model.graph)
    # What the tracer notes beside each node are lines of source files on this machine.
    ClearMetadataAndDocStringPass()(model)
    return model


def _place(error: BaseException) -> str:
    """The innermost line of a method's own code that an error of the tracer went through, or nothing."""
    library = Path(torch.__file__).parent
    frames = [frame for frame in extract_tb(error.__traceback__) if library not in Path(frame.filename).parents]
    program = [frame for frame in frames if frame.filename != __file__]
    return f"; {Path(program[-1].filename).name}, line {program[-1].lineno}: {program[-1].line}" if program else ""


def _simplify(model: ir.Model) -> None:
    """Fold constants, drop what is double or unused, and write what CUDA runs only in other words in those.

    The tracer's own optimizer does this too, but spends most of its time (more than tracing takes, where a program
    has a thousand nodes) on matching rewrite patterns, which runtimes have themselves.
    """
    fold_constants(model)
    _drop_idle_transposes(model.graph)
    _split_integer_clips(model.graph)
    Sequential(
        RemoveUnusedNodesPass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        DeduplicateInitializersPass(),
        CommonSubexpressionEliminationPass(),
        RemoveUnusedNodesPass(),
        OutputFixPass(),
        NameFixPass(),
        ShapeInferencePass(),
    )(model)


def _drop_idle_transposes(graph: ir.Graph) -> None:
    """Drop transposes that move no axis: the tracer puts them around writes of rows, and runtimes copy for them."""
    for node in graph:
        perm = node.attributes.get_ints("perm", []) if node.op_type == "Transpose" else []
        source = node.inputs[0] if node.inputs else None
        if perm and list(perm) == sorted(perm) and source is not None and not node.outputs[0].is_graph_output():
            ir.convenience.replace_all_uses_with(node.outputs[0], source)


def _split_integer_clips(graph: ir.Graph) -> None:
    """Write a Clip of int32 as Max and Min: ONNX Runtime's CUDA provider has those, and runs no such Clip."""
    for node in graph:
        if node.op_type != "Clip" or node.outputs[0].dtype != ir.DataType.INT32:
            continue
        value, output = node.inputs[0], node.outputs[0]
        for operator, bound in zip(("Max", "Min"), node.inputs[1:], strict=False):
            if bound is not None:
                part = ir.Node("", operator, [value, bound], metadata_props=dict(node.metadata_props))
                value = part.outputs[0]
                value.type, value.shape = output.type, output.shape
                graph.insert_before(node, part)
        assert value is not None
        ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _separate_constant_outputs(graph: ir.Graph) -> None:
    """Put an Identity before each output that is a constant, as a plan blind to the video has; engines ask for it."""
    for index, value in enumerate(graph.outputs):
        if value.is_initializer():
            output = ir.Value(name=value.name, shape=value.shape, type=value.type)
            value.name = f"{value.name}_constant"
            graph.append(ir.Node("", "Identity", [value], outputs=[output]))
            graph.outputs[index] = output


def _name_nodes(graph: ir.Graph) -> None:
    """Name each node after the module it comes from: ``vision.tower.layers.0.attention/MatMul_1``."""
    seen: Counter[str] = Counter()
    scope = str(graph.name)
    for node in graph:
        if scopes := ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]")):
            scope = scopes[-2] or str(graph.name)
        name = f"{scope}/{node.op_type}"
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence remarks on libraries that are not needed here, on deprecations of the tracer's own, and on constants.

    And what it prints of a program that it cannot trace, all that it had traced so far: the error says why and where.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
