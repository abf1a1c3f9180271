"""ONNX Runtime, parameterised by its execution provider."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgevtc.backends.base import Backend, Session, TensorSpec
from edgevtc.errors import BackendError, one_line
from edgevtc.extras import require

__all__ = ["PROVIDERS", "OnnxRuntimeBackend", "Provider", "installed_distributions"]


#: The provider that runs what others have no kernel for.
HOST = "CPUExecutionProvider"


class Provider(NamedTuple):
    """An execution provider: its name, the extra that brings it, and what it is told."""

    name: str
    extra: str
    options: dict[str, str]


#: Device → the one execution provider it stands for.
PROVIDERS = {
    "cpu": Provider(HOST, "cpu", {}),
    # On by default, TF32 rounds what is multiplied to ten bits of mantissa, which moves a compressor's thresholds.
    "cuda": Provider("CUDAExecutionProvider", "gpu", {"use_tf32": "0"}),
}

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeBackend(Backend):
    """Graphs on one device through ONNX Runtime.

    Args:
        device: A key of :data:`PROVIDERS`.
        threads: Threads inside an operator; the processors this process may use where None.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        BackendError: The installed build has no provider for the device.
    """

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        self.name = device
        self._provider = PROVIDERS[device]
        self._ort = require("onnxruntime", "running a bundle")
        available = self._ort.get_available_providers()
        if self._provider.name not in available:
            raise BackendError(
                f"device {device} needs {self._provider.name}, which the installed onnxruntime lacks: "
                f"run pip uninstall onnxruntime && pip install 'edgevtc[{self._provider.extra}]'"
            )
        if device == "cuda":
            # CUDA's libraries as pip installs them are on no search path. What it prints of those it does not find, and
            # logs of a provider that cannot start, the error of `load` says.
            self._ort.set_default_logger_severity(4)
            with redirect_stdout(io.StringIO()):
                self._ort.preload_dlls()
        self.runtime = f"onnxruntime {self._ort.__version__}"
        self.threads = threads or len(os.sched_getaffinity(0))

    def supports(self, graph: Path) -> str | None:
        """None: what ONNX Runtime cannot run it refuses in `load`."""
        return None

    def load(self, root: Path, graph: Path, *, prepack: bool = True) -> Session:
        """Load a graph; see :meth:`Backend.load`.

        Weights are mapped from their files, and kernels copy them into a layout of their own, unless `prepack` is
        False: then the session is slow, and kernels that have to have that layout give way to others.
        """
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised, and one line each
        # From the second run on it would hold all of a graph's tensors in one block beside the arena of the first.
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.disable_prepacking", str(int(not prepack)))
        on_host = self._provider.name == HOST
        options.add_session_config_entry("session.record_ep_graph_assignment_info", str(int(not on_host)))
        # From bytes with a folder for the data: by path, ONNX Runtime refuses data outside the graph's own folder.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(root.resolve()))
        try:
            provider = (self._provider.name, self._provider.options)
            # Without the last word, what fails on a device is run on the CPU, and a line of it goes to stdout.
            session = self._ort.InferenceSession(graph.read_bytes(), options, providers=[provider], enable_fallback=0)
        except Exception as error:  # onnxruntime raises its own types, one per status code, without a common base
            raise BackendError(f"onnxruntime cannot load {graph.name} on {self.name}: {one_line(error)}") from error
        if session.get_providers()[0] != self._provider.name:
            raise BackendError(
                f"onnxruntime started without {self._provider.name} (are the driver and its libraries there?): "
                "run pip install 'edgevtc[gpu]' and edgevtc doctor, or use --device cpu"
            )
        return OnnxRuntimeSession(self._ort, session, self.name, {} if on_host else left_to_cpu(session))

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> OrtTensor:
        """A zeroed tensor on the device."""
        return self.tensor(np.zeros(shape, dtype))

    def tensor(self, array: np.ndarray) -> OrtTensor:
        """A tensor on the device with the content of ``array``."""
        array = np.ascontiguousarray(array)
        return OrtTensor(self._ort.OrtValue.ortvalue_from_numpy(array, self.name, 0), array)


class OrtTensor:
    """An OrtValue and, on a CPU, the host array it may share its memory with."""

    def __init__(self, value: Any, source: np.ndarray | None = None) -> None:
        self.value = value
        self._source = source  # keeps the memory alive that the value may point into

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return tuple(self.value.shape())

    def numpy(self) -> np.ndarray:
        """The content on the host."""
        return self.value.numpy()


class OnnxRuntimeSession(Session):
    """An InferenceSession behind an IOBinding."""

    def __init__(self, ort: Any, session: Any, device: str, left_to_cpu: Mapping[str, int]) -> None:
        self._ort, self._session, self._device = ort, session, device
        self.left_to_cpu = left_to_cpu
        self._binding = session.io_binding()
        self.inputs = {node.name: spec(node) for node in session.get_inputs()}
        self.outputs = {node.name: spec(node) for node in session.get_outputs()}
        self._given: dict[str, Any] = {}  # inputs that the next run has to bind
        self._bound: dict[str, Any] = {}  # outputs in the order of their first binding; None: fresh on every run

    def bind(self, name: str, tensor: Any) -> None:
        """Bind an input or output; see :meth:`Session.bind`."""
        if name in self.inputs:
            self._given[name] = tensor
        elif name in self.outputs:
            self._binding.bind_ortvalue_output(name, tensor.value)
            self._bound[name] = tensor
        else:
            raise BackendError(f"the graph has no input or output {name!r}")

    def run(self) -> None:
        """Run the graph; see :meth:`Session.run`."""
        for name, tensor in self._given.items():
            self._binding.bind_ortvalue_input(name, tensor.value)
        if self._device == "cpu":
            # Elsewhere, what a node on the CPU reads is copied there as it is bound, and what a run writes into it, as
            # into a cache, is not: there it is bound again.
            self._given.clear()
        for name in self.outputs:
            if self._bound.setdefault(name) is None:
                # Again on every run: else the last run's value would be overwritten under its reader.
                self._binding.bind_output(name, self._device, 0)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # see OnnxRuntimeBackend.load
            raise BackendError(f"onnxruntime failed while running the graph: {one_line(error)}") from error

    def output(self, name: str) -> OrtTensor:
        """The value of an output after `run`."""
        if (tensor := self._bound[name]) is not None:
            return tensor
        return OrtTensor(self._binding.get_outputs()[list(self._bound).index(name)])


def spec(node: Any) -> TensorSpec:
    """The TensorSpec of an ONNX Runtime NodeArg."""
    shape = tuple(size if isinstance(size, int) else str(size) for size in node.shape)
    return TensorSpec(node.name, shape, np.dtype(DTYPES[node.type]))


def left_to_cpu(session: Any) -> Counter[str]:
    """See :class:`Session`; ONNX Runtime tells it from a release after 1.23 on."""
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    parts = [] if tell is None else tell()
    return Counter(node.op_type for part in parts if part.ep_name == HOST for node in part.get_nodes())


def installed_distributions() -> list[str]:
    """Which of the two ONNX Runtime distributions are installed; with both, one shadows the other."""
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found
