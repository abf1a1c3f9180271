"""Where a checkpoint comes from: the package, a folder, or the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import edgevtc
from edgevtc.catalogue import ModelRecipe, model_names, model_recipe
from edgevtc.errors import ConfigError, ExportError, choices
from edgevtc.exporter.export import ExportOptions
from edgevtc.extras import require

__all__ = ["find_checkpoint"]

#: What is fetched of a repository: no pickles, no other frameworks' weights.
HUB_FILES = ("*.json", "*.jinja", "*.txt", "*.safetensors")


def find_checkpoint(model: str) -> tuple[Path, ExportOptions]:
    """The checkpoint's folder and the options its recipe sets.

    Args:
        model: A name of the model catalogue, a recipe file, or a checkpoint folder (which has no recipe).

    Raises:
        ConfigError: None of the three.
        ExportError: The repository the recipe names cannot be fetched.
    """
    if (Path(model) / "config.json").is_file():
        return Path(model), ExportOptions()
    if Path(model).is_dir():
        raise ExportError(f"{model} holds no config.json: give the folder of a transformers checkpoint")
    if model not in model_names() and not model.endswith(".toml"):
        raise ConfigError(f"no checkpoint folder, recipe file or model {model!r}: {choices(model_names())}")
    recipe = model_recipe(model)
    if recipe.source == "embedded":
        folder = Path(edgevtc.__file__).parent / "embedded" / "checkpoint"
    else:
        folder = fetch(recipe.source, recipe.revision)
    return folder, from_recipe(recipe)


def from_recipe(recipe: ModelRecipe) -> ExportOptions:
    """A recipe's fields as export options; what it leaves open keeps the exporter's default."""
    given: dict[str, Any] = {
        "methods": recipe.methods,
        "retention_ratios": recipe.retention_ratios,
        "num_frames": recipe.num_frames,
        "frames_per_call": recipe.frames_per_call,
        "positions": recipe.positions,
        "weight_formats": recipe.weight_formats,
        "saliency": recipe.saliency,
        "frame_features": recipe.frame_features,
        "siglip_head": fetch(recipe.siglip_head) if recipe.siglip_head else None,
        "max_positions": recipe.max_positions,
        "name": recipe.name,
        "revision": recipe.revision,
        "licence": recipe.licence,
        "examples": recipe.prompt.examples,
    }
    return ExportOptions(**{name: value for name, value in given.items() if value is not None})


def fetch(repository: str, revision: str | None = None) -> Path:
    """A repository of the Hub as a local folder; what the local cache holds is not fetched again."""
    hub = require("huggingface_hub", "fetching a checkpoint")
    try:
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # any of the hub's, httpx's and the file system's
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ExportError(
            f"{repository} cannot be fetched ({reason}): download it elsewhere and give its folder instead"
        ) from None
