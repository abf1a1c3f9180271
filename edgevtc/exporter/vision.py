"""Tracing the vision side into fixed-shape ONNX graphs: encoder, compressor, and both fused."""

from __future__ import annotations

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from edgevtc.compressors import Compressor
from edgevtc.errors import ExportError
from edgevtc.models import Vision

__all__ = ["COMPRESSOR_OUTPUTS", "FRAMES", "OPSET", "export_compressor", "export_encoder", "export_fused"]

#: Opset of the traced graphs: the first with Gelu, and within what TensorRT 10.3 and ONNX Runtime 1.23 read.
OPSET = 20

#: Input of the encoder and of the fused graph.
FRAMES = "frames"

#: Outputs of the compressor and of the fused graph.
COMPRESSOR_OUTPUTS = ("tokens", "positions", "counts", "assignment")


def export_encoder(vision: Vision, frames_per_call: int) -> ir.Model:
    """Trace frames [C, H, W, 3] uint8 → the features the vision part was loaded for.

    Args:
        vision: The vision part; its `outputs` are the graph's.
        frames_per_call: C.

    Raises:
        ExportError: The program cannot be traced.
    """
    return _trace(_Encoder(vision), "encoder", {FRAMES: _frames(vision, frames_per_call)}, vision.outputs)


def export_compressor(
    compressor: Compressor, shapes: Mapping[str, Sequence[int]], dtype: torch.dtype = torch.float32
) -> ir.Model:
    """Trace a compressor alone: its needs → tokens [B, D], positions [B], counts [B], assignment [T, N], all int32.

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
    return _trace(_Compressor(compressor), compressor.spec.name, inputs, COMPRESSOR_OUTPUTS)


def export_fused(vision: Vision, compressor: Compressor, frames_per_slice: int | None = None) -> ir.Model:
    """Trace frames [T, H, W, 3] uint8 → tokens [B, D], positions [B], counts [B], assignment [T, N], all int32.

    The weights have the names and bytes they have in the encoder graph, so a store by content holds them once.

    Args:
        vision: The vision part.
        compressor: The program that follows it.
        frames_per_slice: Frames the tower takes at once inside the graph. Fewer frames bound the memory of its
            activations where attention is not fused, but each slice repeats the tower's nodes; all T where not given.

    Raises:
        ExportError: The vision part does not give what the method needs, or the program cannot be traced.
    """
    _check_needs(compressor, vision.outputs)
    module = _Fused(vision, compressor, frames_per_slice or compressor.num_frames)
    frames = _frames(vision, compressor.num_frames)
    return _trace(module, compressor.spec.name, {FRAMES: frames}, COMPRESSOR_OUTPUTS)


# A parameter's name in the graph is its path in the traced module. These wrappers give a weight the same path, and so
# the same name, in every graph.


class _Encoder(nn.Module):
    def __init__(self, vision: Vision) -> None:
        super().__init__()
        self.vision = vision

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        return self.vision(frames)


class _Compressor(nn.Module):
    def __init__(self, compressor: Compressor) -> None:
        super().__init__()
        self.compressor = compressor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.compressor(*inputs)


class _Fused(nn.Module):
    def __init__(self, vision: Vision, compressor: Compressor, frames_per_slice: int) -> None:
        super().__init__()
        self.vision = vision
        self.compressor = compressor
        self.frames_per_slice = frames_per_slice

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        # Engines take uint8 as an input and can only cast it, not split it.
        slices = [self.vision(part) for part in frames.float().split(self.frames_per_slice)]
        columns = zip(self.vision.outputs, zip(*slices, strict=True), strict=True)
        features = {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in columns}
        return self.compressor(*(features[name] for name in self.compressor.spec.needs))


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
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        # The error itself tells which step failed; its cause tells why.
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ExportError(f"{name} cannot be traced ({reason}): keep to fixed shapes and operators ONNX has") from error
    assert program is not None
    model = program.model
    model.graph.name = name
    _separate_constant_outputs(model.graph)
    _name_nodes(model.graph)
    # What the tracer notes beside each node are lines of source files on this machine.
    ClearMetadataAndDocStringPass()(model)
    return model


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
    """Silence the tracer's remarks on libraries that are not needed here and on its own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
