"""Where a checkpoint comes from: the package, a folder, or the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import edgevtc
from edgevtc.catalogue import ModelRecipe, model_names, model_recipe
from edgevtc.errors import ConfigError, ExportError, choices
from edgevtc.exporter.hub import commit_of, fetch
from edgevtc.exporter.options import ExportOptions
from edgevtc.exporter.progress import silent
from edgevtc.extras import require
from edgevtc.models.checkpoint import read_json

__all__ = ["find_checkpoint"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_checkpoint(
    model: str,
    revision: str | None = None,
    token: str | None = None,
    *,
    siglip_head: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = silent,
    outlines: Path | None = None,
) -> tuple[Path, ExportOptions]:
    """The checkpoint's folder, and the options its recipe or its model card sets.

    Args:
        model: A name of the model catalogue, a recipe file, a checkpoint folder, or a repository of the Hub.
        revision: Branch, tag or commit of a repository; the recipe's where None.
        token: For repositories that ask for one; that of the environment (HF_TOKEN) or of the Hub's login where None.
        siglip_head: Checkpoint to take a pooling head of: a file, a folder or a repository; the recipe's where None.
        say: Called with what the user should know, as where the cache served because the Hub did not.
        outlines: See :func:`fetch`.

    Raises:
        ConfigError: None of the four, no such pooling head, or a revision or a token for something that has none.
        ExportError: The folder is no checkpoint, the repository cannot be fetched, or is of another family than the
            recipe.
    """
    # What libraries say of a token they cannot send shows it.
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise ConfigError("--token is no token of the Hub: give it as its settings page shows it")
    path, recipe = Path(model), None
    siglip_head = None if siglip_head is None else os.fspath(siglip_head)
    is_folder = bool(model) and os.path.isdir(model)  # which, unlike pathlib, takes any name
    if not is_folder and (model in model_names() or model.endswith(".toml")):
        recipe = model_recipe(model)
        siglip_head = recipe.siglip_head if siglip_head is None else siglip_head
    if siglip_head is not None and not is_repository(siglip_head) and not os.path.exists(siglip_head):
        raise ConfigError(f"there is no {siglip_head!r} to take a pooling head from: give a file, folder or repository")
    asks = None if is_repository(siglip_head) else token
    if is_folder:
        refuse(revision, asks, f"{model} is a folder")
        if not (path / "config.json").is_file():
            raise ExportError(f"{model} holds no config.json: give the folder of a transformers checkpoint")
        folder, options = path, ExportOptions(licence=licence_of(path))
    elif recipe is not None:
        if recipe.source == "embedded":
            refuse(revision, asks, f"{model} ships in the package")
            folder, held = Path(edgevtc.__file__).parent / "embedded" / recipe.revision, recipe.revision
        else:
            folder = fetch(recipe.source, revision or recipe.revision, token, say, outlines)
            held = commit_of(folder)
        if (family := read_json(folder / "config.json").get("model_type")) != recipe.family:
            raise ExportError(
                f"{model}: family: {recipe.family!r} is not the model_type of {recipe.source}, which is {family!r}: "
                "correct the recipe"
            )
        options = from_recipe(recipe, held)
    elif is_repository(model):
        folder = fetch(model, revision, token, say, outlines)
        name = model.partition("/")[2]
        options = ExportOptions(name=name, revision=commit_of(folder), licence=licence_of(folder))
    else:
        raise ConfigError(
            f"no checkpoint folder, recipe file, repository (owner/name) or model {model!r}: {choices(model_names())}"
        )
    if siglip_head is None:
        return folder, options
    head = fetch(siglip_head, None, token, say, outlines) if is_repository(siglip_head) else Path(siglip_head)
    return folder, replace(options, siglip_head=head)


def is_repository(name: str | None) -> bool:
    """Whether it can only be one of the Hub's."""
    return name is not None and HUB_ID.fullmatch(name) is not None and not os.path.exists(name)


def refuse(revision: str | None, token: str | None, what: str) -> None:
    """Raise where something that is not of the Hub is given what only a repository has."""
    if revision is not None:
        raise ConfigError(f"{what} and has no revision {revision!r}: leave --revision out")
    if token is not None:
        raise ConfigError(f"{what} and takes no token: leave --token out")


def from_recipe(recipe: ModelRecipe, revision: str) -> ExportOptions:
    """A recipe's fields as export options, its pooling head aside; what it leaves open keeps the exporter's default."""
    given: dict[str, Any] = {
        "methods": recipe.methods,
        "retention_ratios": recipe.retention_ratios,
        "num_frames": recipe.num_frames,
        "frames_per_call": recipe.frames_per_call,
        "positions": recipe.positions,
        "parameters": recipe.parameters,
        "weight_formats": recipe.weight_formats,
        "saliency": recipe.saliency,
        "frame_features": recipe.frame_features,
        "max_positions": recipe.max_positions,
        "fused": recipe.fused,
        "dtype": recipe.dtype,
        "encoder_format": recipe.encoder_format,
        "name": recipe.name,
        "revision": revision,
        "licence": recipe.licence,
        "examples": recipe.prompt.examples,
    }
    return ExportOptions(**{name: value for name, value in given.items() if value is not None})


def licence_of(folder: Path) -> str:
    """What a checkpoint's model card states as its licence; empty where it states none.

    Raises:
        ExportError: The card's metadata cannot be read.
    """
    hub = require("huggingface_hub", "reading a model card")
    path = folder / "README.md"
    try:
        card = (hub.metadata_load(path) if path.is_file() else None) or {}
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error.strerror}): mend or remove it") from None
    except Exception:  # the YAML parser's and huggingface_hub's own, without a common base
        raise ExportError(f"{path} does not start with valid YAML: mend or remove it") from None
    stated = card.get("license") or ""
    if stated == "other":
        stated = card.get("license_name") or stated
    return ", ".join(stated) if isinstance(stated, list) else str(stated)
