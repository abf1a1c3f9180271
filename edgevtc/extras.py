"""Optional libraries, imported where they are used; a missing one names the extra that brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from edgevtc.errors import MissingExtraError

__all__ = ["EXTRA_OF", "require"]

#: Importable module → the extra of this distribution that installs it.
EXTRA_OF = {
    "onnxruntime": "cpu",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "torch": "export",
    "transformers": "export",
    "onnx": "export",
    "onnxscript": "export",
    "onnx_ir": "export",
    "safetensors": "export",
    "huggingface_hub": "export",
}


def require(module: str, purpose: str) -> ModuleType:
    """Import ``module``, or raise an error that says what it is for and how to install it.

    Args:
        module: Importable name, a key of :data:`EXTRA_OF` or a submodule of one (``"torch.nn"``).
        purpose: What cannot be done without it, as in ``"exporting a checkpoint"``.

    Raises:
        MissingExtraError: The library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != root:
            raise
        extra = EXTRA_OF[root]
        raise MissingExtraError(
            f"{purpose} needs {root}, which is not installed: run pip install 'edgevtc[{extra}]'", name=root
        ) from None
