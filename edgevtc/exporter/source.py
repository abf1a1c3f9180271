"""Where a checkpoint comes from: the package, a folder, or the Hugging Face Hub."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import edgevtc
from edgevtc.catalogue import ModelRecipe, model_names, model_recipe
from edgevtc.errors import ConfigError, ExportError, choices
from edgevtc.exporter.options import ExportOptions
from edgevtc.exporter.progress import silent
from edgevtc.extras import require
from edgevtc.models.checkpoint import read_json

__all__ = ["find_checkpoint"]

#: What is fetched of a repository: no pickles, no other frameworks' weights.
HUB_FILES = ("*.json", "*.jinja", "*.txt", "*.safetensors", "README.md")

#: What is not: other weights and configurations, as adapters and other precisions are.
HUB_FOLDERS = ("*/*",)

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_checkpoint(
    model: str, revision: str | None = None, token: str | None = None, say: Callable[[str], None] = silent
) -> tuple[Path, ExportOptions]:
    """The checkpoint's folder, and the options its recipe or its model card sets.

    Args:
        model: A name of the model catalogue, a recipe file, a checkpoint folder, or a repository of the Hub.
        revision: Branch, tag or commit of a repository; the recipe's where None.
        token: For repositories that ask for one; that of the environment (HF_TOKEN) or of the Hub's login where None.
        say: Called with what the user should know, as where the cache served because the Hub did not.

    Raises:
        ConfigError: None of the four, or a revision or a token for something that has none.
        ExportError: The folder is no checkpoint, the repository cannot be fetched, or is of another family than the
            recipe.
    """
    path = Path(model)
    if model and path.is_dir():
        refuse(revision, token, f"{model} is a folder")
        if not (path / "config.json").is_file():
            raise ExportError(f"{model} holds no config.json: give the folder of a transformers checkpoint")
        return path, ExportOptions(licence=licence_of(path))
    if model in model_names() or model.endswith(".toml"):
        recipe = model_recipe(model)
        if recipe.source == "embedded":
            refuse(revision, None if recipe.siglip_head else token, f"{model} ships in the package")
            folder, held = Path(edgevtc.__file__).parent / "embedded" / recipe.revision, recipe.revision
        else:
            folder = fetch(recipe.source, revision or recipe.revision, token, say)
            held = commit_of(folder)
        if (family := read_json(folder / "config.json").get("model_type")) != recipe.family:
            raise ExportError(
                f"{model}: family: {recipe.family!r} is not the model_type of {recipe.source}, which is {family!r}: "
                "correct the recipe"
            )
        return folder, from_recipe(recipe, held, token, say)
    if not HUB_ID.fullmatch(model):
        raise ConfigError(
            f"no checkpoint folder, recipe file, repository (owner/name) or model {model!r}: {choices(model_names())}"
        )
    folder = fetch(model, revision, token, say)
    name = model.partition("/")[2]
    return folder, ExportOptions(name=name, revision=commit_of(folder), licence=licence_of(folder))


def refuse(revision: str | None, token: str | None, what: str) -> None:
    """Raise where something that is not of the Hub is given what only a repository has."""
    if revision is not None:
        raise ConfigError(f"{what} and has no revision {revision!r}: leave --revision out")
    if token is not None:
        raise ConfigError(f"{what} and takes no token: leave --token out")


def from_recipe(
    recipe: ModelRecipe, revision: str, token: str | None, say: Callable[[str], None] = silent
) -> ExportOptions:
    """A recipe's fields as export options; what it leaves open keeps the exporter's default."""
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
        "siglip_head": fetch(recipe.siglip_head, None, token, say) if recipe.siglip_head else None,
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


def fetch(
    repository: str, revision: str | None = None, token: str | None = None, say: Callable[[str], None] = silent
) -> Path:
    """A repository of the Hub as a local folder; what the local cache holds is not fetched again.

    Raises:
        ExportError: It cannot be fetched, does not fit on the disk, or holds no safetensors.
    """
    hub = require("huggingface_hub", "fetching a checkpoint")
    patterns = {"allow_patterns": list(HUB_FILES), "ignore_patterns": list(HUB_FOLDERS)}
    options = {"revision": revision, "token": token, **patterns}
    unheard = ""  # why the Hub did not answer
    where = f"{repository} at revision {revision}" if revision else repository
    try:
        try:
            with bars(hub, shown=False):
                files = hub.snapshot_download(repository, dry_run=True, **options)
        except hub.errors.DryRunError as error:  # no answer: the cache may hold it all the same
            files, unheard = [], silence(error)
        require_space(repository, sum(file.file_size or 0 for file in files if file.will_download))
        with bars(hub, shown=sys.stderr.isatty()):
            folder = Path(hub.snapshot_download(repository, **options))
    except ExportError:
        raise
    except hub.errors.GatedRepoError:
        reason = "its owner grants access: ask for it on its page, then give --token or set HF_TOKEN"
    except hub.errors.RepositoryNotFoundError:
        reason = "there is none of this name, or it is private: check the name, or give --token"
    except hub.errors.RevisionNotFoundError:
        reason = "it has no such revision: give a branch, tag or commit of it"
    except hub.errors.LocalEntryNotFoundError as error:
        reason = f"{silence(error)} and the local cache does not hold it: give its folder instead"
    except Exception as error:  # any other of the hub's, httpx's and the file system's
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        reason = f"{first}; download it elsewhere and give its folder instead"
    else:
        if not any(folder.glob("*.safetensors")):
            raise ExportError(
                f"{where} holds no safetensors, and pickled weights are not fetched, since unpickling runs code: "
                "choose a revision with safetensors, or convert it with save_pretrained"
            )
        if unheard:
            say(f"{unheard}: taking {where} as the local cache holds it, {commit_of(folder)}")
        return folder
    raise ExportError(f"{where} cannot be fetched: {reason}")


@contextmanager
def bars(hub: ModuleType, *, shown: bool) -> Iterator[None]:
    """The Hub's progress bars, or none of them: in a file each step of one would stay. Its own settings come first."""
    if shown or hub.utils.are_progress_bars_disabled() or hub.constants.HF_HUB_DISABLE_PROGRESS_BARS is False:
        yield
        return
    hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        hub.utils.enable_progress_bars()


def silence(error: Exception) -> str:
    """Why the Hub did not say what a repository holds, by the error that came of it."""
    response = getattr(error.__cause__, "response", None)
    return "the Hub cannot be reached" if response is None else f"the Hub answers {response.status_code}"


def require_space(repository: str, needed: int) -> None:
    """Raise unless what has to be downloaded fits on the cache's disk."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from rich.filesize import decimal

    folder = Path(HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    if needed > (free := shutil.disk_usage(folder).free):
        raise ExportError(
            f"{repository} takes {decimal(needed)} to download, {folder} has {decimal(free)} free: "
            "make room, or set HF_HOME to a larger disk"
        )


def commit_of(folder: Path) -> str:
    """The commit a fetched folder is a snapshot of."""
    return folder.name


def licence_of(folder: Path) -> str:
    """What a checkpoint's model card states as its licence; empty where it states none.

    Raises:
        ExportError: The card's metadata cannot be read.
    """
    hub = require("huggingface_hub", "reading a model card")
    path = folder / "README.md"
    try:
        card = (hub.metadata_load(path) if path.is_file() else None) or {}
    except Exception:  # the YAML parser's and huggingface_hub's own, without a common base
        raise ExportError(f"{path} does not start with valid YAML: mend or remove it") from None
    stated = card.get("license") or ""
    if stated == "other":
        stated = card.get("license_name") or stated
    return ", ".join(stated) if isinstance(stated, list) else str(stated)
