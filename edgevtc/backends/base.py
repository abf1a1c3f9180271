"""The protocol every backend follows: load a graph, bind tensors by name, run, read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Backend", "Session", "Tensor", "TensorSpec"]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and element type of a graph's input or output; a symbolic dimension is its name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: np.dtype


class Tensor(Protocol):
    """An array where the backend computes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""

    def numpy(self) -> np.ndarray:
        """The content on the host; on a CPU without a copy."""


class Session(ABC):
    """A loaded graph with its bindings. A binding holds until the name is bound again.

    Attributes:
        inputs: By name.
        outputs: By name.
        left_to_cpu: Operators that the device has no kernel for and the CPU computes, with a copy there and back → how
            many; empty where there are none or the runtime does not tell.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    left_to_cpu: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def bind(self, name: str, tensor: Tensor) -> None:
        """Read input ``name`` from, or write output ``name`` to, this tensor on every run."""

    @abstractmethod
    def run(self) -> None:
        """Run once. Every input must be bound; outputs that are not get a fresh tensor."""

    @abstractmethod
    def output(self, name: str) -> Tensor:
        """The value of an output after `run`."""


class Backend(ABC):
    """A place where graphs run.

    Attributes:
        name: As in ``--device``.
        runtime: Library that runs the graphs, and its version.
        threads: Threads inside an operator on a CPU.
    """

    name: str
    runtime: str
    threads: int

    @abstractmethod
    def supports(self, graph: Path) -> str | None:
        """Why this backend cannot run a graph file, or None."""

    @abstractmethod
    def load(self, root: Path, graph: Path) -> Session:
        """Load a graph whose external data lie below ``root``.

        Raises:
            BackendError: The graph cannot run here; the message names the remedy.
        """

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Tensor:
        """A zeroed tensor on the device."""

    @abstractmethod
    def tensor(self, array: np.ndarray) -> Tensor:
        """A tensor on the device with the content of a host array, which the backend may go on using."""
