"""Where graphs run: one small protocol and its implementations."""

from __future__ import annotations

from importlib import import_module

from edgevtc.backends.base import Backend, Session, Tensor, TensorSpec
from edgevtc.errors import ConfigError, choices

__all__ = ["BACKENDS", "DEVICES", "Backend", "Session", "Tensor", "TensorSpec", "create_backend"]

#: Value of ``--backend`` → class in the module of that name.
BACKENDS = {"onnxruntime": "OnnxRuntimeBackend"}

#: Valid values of ``--device``.
DEVICES = ("cpu", "cuda")


def create_backend(device: str | Backend = "cpu", threads: int | None = None, library: str = "onnxruntime") -> Backend:
    """The backend of a device.

    Args:
        device: One of :data:`DEVICES`; a backend is given back as it is.
        threads: Threads inside an operator on a CPU; all this process may use where None.
        library: A key of :data:`BACKENDS`.

    Raises:
        ConfigError: Unknown device or backend, or a thread count below 1.
        MissingExtraError: The backend's library is not installed; the message names the extra.
        BackendError: The library is there but cannot serve the device.
    """
    if isinstance(device, Backend):
        return device
    if library not in BACKENDS:
        raise ConfigError(f"unknown backend {library!r}: {choices(BACKENDS)}")
    if device not in DEVICES:
        raise ConfigError(f"unknown device {device!r}: {choices(DEVICES)}")
    if threads is not None and threads < 1:
        raise ConfigError(f"{threads} threads is not valid: give 1 or more")
    backend: Backend = getattr(import_module(f"edgevtc.backends.{library}"), BACKENDS[library])(device, threads)
    return backend
