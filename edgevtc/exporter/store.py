"""Graphs into a bundle: every large initializer goes to the bundle's store by content, the graph keeps a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgevtc.bundle import FolderWriter

__all__ = ["INLINE_BYTES", "read_graph", "write_graph"]

#: Smaller tensors stay inside the graph file: shapes, axes, scalars.
INLINE_BYTES = 1024


def write_graph(writer: FolderWriter, name: str, model: ir.Model) -> str:
    """Write a model as file ``name`` of a bundle.

    Initializers are read one at a time, so a model whose tensors load lazily never stands whole in memory. The
    model is changed: its large initializers become external tensors whose location is relative to the bundle's
    folder, so that the same bytes serve every graph.

    Returns:
        ``name``.
    """
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= INLINE_BYTES:
            continue
        value.const_value = ir.ExternalTensor(
            location=writer.blob(tensor.tobytes()),
            offset=0,
            length=tensor.nbytes,
            dtype=tensor.dtype,
            shape=tensor.shape,  # type: ignore[arg-type]  # an initializer's shape is static
            name=value.name or "",
            base_dir=writer.folder,
        )
    return writer.file(name, ir.to_proto(model).SerializeToString())


def read_graph(folder: Path, name: str) -> ir.Model:
    """The model that :func:`write_graph` wrote as file ``name`` of a folder; its tensors are read when used."""
    model = ir.from_proto(onnx.ModelProto.FromString((folder / name).read_bytes()))
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = stored_tensor(folder, value.const_value)
    return model


def stored_tensor(folder: Path, tensor: ir.ExternalTensor) -> ir.LazyTensor:
    """A tensor of a store that can be saved elsewhere too, as an external one cannot; nor would that read a file of
    several names."""

    def read() -> ir.Tensor:
        content = np.fromfile(folder / tensor.location, tensor.dtype.numpy()).reshape(tensor.shape.numpy())
        return ir.Tensor(content, dtype=tensor.dtype, name=tensor.name)

    return ir.LazyTensor(read, tensor.dtype, tensor.shape, name=tensor.name)
