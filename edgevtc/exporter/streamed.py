"""A decoder's graph, run with the weights of one layer in memory.

ONNX Runtime maps the weights of a bundle's store, but its kernels copy them into a layout of their own, so a loaded
decoder takes its whole size. Told not to (`session.disable_prepacking`), it takes other kernels, which do not compute
the same: the one for int8 heads decodes the whole head to float32 for every token. So the graph is cut at its layers,
which are loaded one after the other in every run; kernels and results are those of the whole graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import helper

from edgevtc.backends import Session, Tensor
from edgevtc.backends.onnxruntime import OnnxRuntimeBackend

__all__ = ["StreamedBackend", "layer_of"]

LAYER = re.compile(r"layers\.\d+(?=\.)")


def layer_of(name: str) -> str:
    """The layer that a node or a weight of a declared decoder is of; empty for those before and behind the layers."""
    found = LAYER.match(name)
    return found[0] if found else ""


class StreamedBackend(OnnxRuntimeBackend):
    """ONNX Runtime on a CPU; of a decoder, one layer is in memory at a time. Other graphs are loaded whole."""

    def load(self, root: Path, graph: Path, *, prepack: bool = True) -> Session:
        """Load a graph; see :meth:`Backend.load`."""
        pieces = cut(onnx.ModelProto.FromString(graph.read_bytes()))
        if len(pieces) == 1:
            return super().load(root, graph, prepack=prepack)
        # The whole graph too, which holds nothing in memory like this: what is cut must have been one that loads.
        whole = super().load(root, graph, prepack=False)
        return StreamedSession(OnnxRuntimeBackend(threads=self.threads), root, whole, graph.stem, pieces)


class StreamedSession(Session):
    """The pieces of a graph in the order they run in.

    Args:
        backend: Runs the pieces.
        root: Folder of their external data.
        whole: The graph they are pieces of.
        name: Of that graph, for errors.
        pieces: See :func:`cut`.
    """

    def __init__(
        self, backend: OnnxRuntimeBackend, root: Path, whole: Session, name: str, pieces: list[onnx.ModelProto]
    ) -> None:
        self.inputs, self.outputs = whole.inputs, whole.outputs
        self._backend, self._root = backend, root
        self._bound: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}
        self._folder = TemporaryDirectory(prefix="edgevtc-")
        self._pieces = [
            Path(self._folder.name) / f"{name}-{index}-{piece.graph.name}" for index, piece in enumerate(pieces)
        ]
        for path, piece in zip(self._pieces, pieces, strict=True):
            path.write_bytes(piece.SerializeToString())

    def bind(self, name: str, tensor: Tensor) -> None:
        """Bind an input or output; see :meth:`Session.bind`."""
        self._bound[name] = tensor

    def run(self) -> None:
        """Run once; see :meth:`Session.run`."""
        self._values = dict(self._bound)
        for path in self._pieces:
            self._values |= self._run(path)

    def _run(self, path: Path) -> Mapping[str, Tensor]:
        """What one piece computes beside what is bound. When this returns, its weights are gone."""
        session = self._backend.load(self._root, path)
        fresh = [name for name in session.outputs if name not in self._bound]
        for name in session.inputs:
            session.bind(name, self._values[name])
        for name in session.outputs.keys() - fresh:
            session.bind(name, self._bound[name])
        session.run()
        return {name: self._backend.tensor(session.output(name).numpy().copy()) for name in fresh}

    def output(self, name: str) -> Tensor:
        """The value of an output after `run`."""
        return self._values[name]


def cut(model: onnx.ModelProto) -> list[onnx.ModelProto]:
    """A declared decoder's layers, and what comes before and behind them, as models of their own.

    Values that pass from one to another are inputs and outputs of the same name; between layers all are float32.
    """
    graph = model.graph
    declared = {value.name: value for value in (*graph.input, *graph.output)}
    weights = {weight.name: weight for weight in graph.initializer}
    runs = [(layer, list(nodes)) for layer, nodes in groupby(graph.node, lambda node: layer_of(node.name))]
    reads = [{name for node in nodes for name in node.input if name} for _, nodes in runs]

    def values(names: set[str]) -> list[onnx.ValueInfoProto]:
        unknown = onnx.TensorProto.FLOAT, None
        return [declared.get(name) or helper.make_tensor_value_info(name, *unknown) for name in sorted(names)]

    pieces = []
    for index, (layer, nodes) in enumerate(runs):
        made = {name for node in nodes for name in node.output if name}
        wanted = made & (declared.keys() | set().union(*reads[index + 1 :]))
        pieces.append(
            helper.make_model(
                helper.make_graph(
                    nodes,
                    layer or "rest",
                    values(reads[index] - made - weights.keys()),
                    values(wanted),
                    [weights[name] for name in sorted(reads[index] & weights.keys())],
                ),
                opset_imports=model.opset_import,
                ir_version=model.ir_version,
            )
        )
    return pieces
