"""One adapter a model family: its vision part, its decoder weights, its prompt."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from edgevtc.errors import ExportError, choices
from edgevtc.models.base import Geometry, ModelAdapter, Preprocessing, Prompt, Vision, VisionSize
from edgevtc.models.checkpoint import read_json

__all__ = ["Geometry", "ModelAdapter", "Preprocessing", "Prompt", "Vision", "VisionSize", "model_types", "open_model"]

#: `model_type` of config.json → module and class of the adapter.
_ADAPTERS = {
    "llava_onevision": ("llava_onevision", "LlavaOnevision"),
}


def model_types() -> list[str]:
    """The model families that can be exported, by `model_type` of config.json."""
    return list(_ADAPTERS)


def open_model(folder: Path | str) -> ModelAdapter:
    """Open a checkpoint folder with its family's adapter; no weights are read yet.

    Raises:
        ExportError: There is no readable config.json, the family is unknown, or the adapter refuses the checkpoint.

    Example:
        >>> open_model("checkpoints/llava-onevision-0.5b").geometry.tokens_per_frame
        196
    """
    folder = Path(folder)
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in _ADAPTERS:
        raise ExportError(f"{folder} has model_type {model_type!r}, which cannot be exported: {choices(model_types())}")
    module, attribute = _ADAPTERS[model_type]
    adapter: type[ModelAdapter] = getattr(import_module(f"edgevtc.models.{module}"), attribute)
    return adapter(folder)
