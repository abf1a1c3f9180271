"""Repositories of the Hugging Face Hub as local folders: whole, or in outline until an export is known to fit."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import REQUESTED_RANGE_NOT_SATISFIABLE, TOO_MANY_REQUESTS
from pathlib import Path
from types import ModuleType
from typing import Any

from edgevtc.errors import ExportError
from edgevtc.exporter.knowledge import DOMAIN
from edgevtc.exporter.progress import silent
from edgevtc.extras import require
from edgevtc.files import nearest_folder

__all__ = ["commit_of", "download_beside", "fetch", "outlined"]

#: What is fetched of a repository: no pickles, no other frameworks' weights.
WEIGHTS = "*.safetensors"
HUB_FILES = ("*.json", "*.jinja", "*.txt", WEIGHTS, "README.md", DOMAIN)

#: What is not: other weights and configurations, as adapters and other precisions are.
HUB_FOLDERS = ("*/*",)

#: Seconds to wait before a header is asked for again.
PAUSES_S = (0.5, 1.0, 2.0)


def fetch(
    repository: str,
    revision: str | None = None,
    token: str | None = None,
    say: Callable[[str], None] = silent,
    outlines: Path | None = None,
) -> Path:
    """A repository of the Hub as a local folder; what the local cache holds is not fetched again.

    Args:
        repository: Its owner/name.
        revision: Branch, tag or commit.
        token: For repositories that ask for one; that of the environment (HF_TOKEN) or of the Hub's login where None.
        say: Called with what the user should know, as where the cache served because the Hub did not.
        outlines: Where weights would have to be downloaded, none are: a folder below this one then has their headers,
            which is all that planning an export reads. Where nothing would, it is left empty.

    Raises:
        ExportError: It cannot be fetched, does not fit on the disk, or holds no safetensors.
    """
    hub = require("huggingface_hub", "fetching a checkpoint")
    options = {"revision": revision, "token": token, "ignore_patterns": list(HUB_FOLDERS)}
    whole, small = list(HUB_FILES), [pattern for pattern in HUB_FILES if pattern != WEIGHTS]
    unheard = ""  # why the Hub did not answer
    where = f"{repository} at revision {revision}" if revision else repository
    try:
        try:
            with bars(hub, shown=False):
                files = hub.snapshot_download(repository, dry_run=True, allow_patterns=whole, **options)
        except hub.errors.DryRunError as error:  # no answer: the cache may hold it all the same
            files, unheard = [], silence(error)
        require_space(repository, sum(file.file_size or 0 for file in files if file.will_download))
        weights = [file for file in files if Path(file.filename).match(WEIGHTS)]
        if outlines is not None and any(file.will_download for file in weights):
            with bars(hub, shown=False):
                folder = Path(hub.snapshot_download(repository, allow_patterns=small, **options))
            return outline(hub, repository, token, folder, weights, outlines)
        with bars(hub, shown=sys.stderr.isatty()):
            folder = Path(hub.snapshot_download(repository, allow_patterns=whole, **options))
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
        if (token and token in first) or "Bearer" in first:
            first = "the token cannot be sent"
        reason = f"{first}; try again, for what has arrived is kept, or download it elsewhere and give its folder"
    else:
        if not any(folder.glob(WEIGHTS)):
            raise ExportError(
                f"{where} holds no safetensors, and pickled weights are not fetched, since unpickling runs code: "
                "choose a revision with safetensors, or convert it with save_pretrained"
            )
        if unheard:
            say(f"{unheard}: taking {where} as the local cache holds it, {commit_of(folder)}")
        return folder
    raise ExportError(f"{where} cannot be fetched: {reason}")


def outline(
    hub: ModuleType, repository: str, token: str | None, snapshot: Path, weights: Sequence[Any], outlines: Path
) -> Path:
    """A folder like the whole snapshot's, but for the weights: files of their names and sizes, with headers alone.

    Args:
        hub: huggingface_hub.
        repository: Its owner/name.
        token: As for :func:`fetch`.
        snapshot: The repository's other files.
        weights: What the Hub said of the safetensors.
        outlines: Where the folder is made.
    """
    folder = outlines / repository.replace("/", "--") / commit_of(snapshot)
    if folder.is_dir():  # as one that is model and pooling head at once
        return folder
    folder.mkdir(parents=True)
    for path in snapshot.iterdir():
        if path.is_file() and not path.match(WEIGHTS):
            (folder / path.name).symlink_to(path.absolute())
    for file in weights:
        name = Path(file.filename).name
        if not file.will_download:
            (folder / name).symlink_to(Path(file.local_path).absolute())
            continue
        header, size = header_of(hub, repository, token, file)
        if file.file_size is not None and size + 8 > file.file_size:
            raise ExportError(
                f"{name} of {repository} is cut short: its header tells of {size} bytes, it has {file.file_size}"
            )
        (folder / name).write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(folder / name, 8 + len(header) + size)  # takes no room: what is not written is a hole
    return folder


def header_of(hub: ModuleType, repository: str, token: str | None, file: Any) -> tuple[bytes, int]:
    """The header of one safetensors file, and the bytes of the tensors it tells of.

    Raises:
        ExportError: It is no safetensors file.
        Exception: Of the network, when it has been asked for some times.
    """
    for pause in (*PAUSES_S, None):
        try:
            with bars(hub, shown=False):
                found = hub.parse_safetensors_file_metadata(
                    repository, file.filename, revision=file.commit_hash, token=token
                )
            tensors = {
                name: {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": tensor.data_offsets}
                for name, tensor in found.tensors.items()
            }
            size = max((int(tensor.data_offsets[1]) for tensor in found.tensors.values()), default=0)
            return json.dumps(tensors).encode(), size
        except (AttributeError, LookupError, TypeError, ValueError, hub.errors.SafetensorsParsingError):
            break
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == REQUESTED_RANGE_NOT_SATISFIABLE:  # it is empty
                break
            if pause is None or (status is not None and status < 500 and status != TOO_MANY_REQUESTS):
                raise
            time.sleep(pause)
    raise ExportError(f"{file.filename} of {repository} is not a safetensors file: choose another revision")


def outlined(text: str, outlines: Path) -> str:
    """A message about files of outlines as one about the repositories they are of."""
    for folder in outlines.glob("*/*"):
        text = text.replace(str(folder), f"{folder.parent.name.replace('--', '/')} at {folder.name}")
    return text


def download_beside(output: Path, outlines: Path) -> int:
    """Bytes of outlined weights that will be downloaded to the disk which the output, too, goes to."""
    if nearest_folder(cache_folder()).stat().st_dev != nearest_folder(output).stat().st_dev:
        return 0
    return sum(path.stat().st_size for path in outlines.rglob(WEIGHTS) if not path.is_symlink())


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
    from rich.filesize import decimal

    folder = nearest_folder(cache_folder())
    if needed > (free := shutil.disk_usage(folder).free):
        raise ExportError(
            f"{repository} takes {decimal(needed)} to download, {folder} has {decimal(free)} free: "
            "make room, or set HF_HOME to a larger disk"
        )


def cache_folder() -> Path:
    """Where repositories are kept."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def commit_of(folder: Path) -> str:
    """The commit a fetched folder is a snapshot of."""
    return folder.name
