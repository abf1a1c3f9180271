"""Write a bundle whole or not at all, its tensors stored once by content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from edgevtc.bundle.manifest import FileEntry, Manifest, TensorEntry
from edgevtc.bundle.reader import MANIFEST, Bundle, file_sha256
from edgevtc.errors import BundleError, ExportError

__all__ = ["BundleWriter", "FolderWriter", "abandoned", "hidden_sibling", "require_writable", "writing"]

PARTIAL = "partial"

#: Longest name of a file, in bytes, and of what a hidden sibling's has beside the bundle's own.
NAME_MAX, SIBLING_EXTRA = 255, 40

#: Field of /proc/PROCESS/stat, counted behind the name in brackets: when the process started, in ticks since boot.
STARTED_FIELD = 19


class FolderWriter:
    """Fills a folder with files and tensors as they stand in a bundle.

    Args:
        folder: The folder; it need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """The folder being filled."""
        return self._folder

    def blob(self, content: bytes | memoryview | np.ndarray) -> str:
        """Store bytes under their own hash; the same bytes are stored once. Returns the file's name in the bundle."""
        data = content
        if isinstance(data, np.ndarray):
            data = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
        name = f"weights/{hashlib.sha256(data).hexdigest()[:32]}"
        path = self._folder / name
        if not path.exists():
            write(path, data)
        return name

    def tensor(self, array: np.ndarray) -> TensorEntry:
        """Store a tensor for the host to read."""
        return TensorEntry(self.blob(array), array.dtype.name, array.shape)

    def file(self, name: str, content: bytes) -> str:
        """Write one file of the bundle; returns its name."""
        write(self._folder / name, content)
        return name


class BundleWriter(FolderWriter):
    """A context manager that fills a hidden sibling folder and renames it when the bundle is complete.

    Args:
        path: Where the bundle will stand; of a symbolic link, what it points at.
        overwrite: Replace a bundle that is already there; anything else that is there is never replaced.

    Attributes:
        path: Where the bundle will stand, no link.

    Raises:
        ExportError: Something stands at ``path`` that must not be replaced, or nothing can be written there. So it is
            said before anything is written; and whatever cannot be written later is one, too.

    Example:
        >>> with BundleWriter("out") as writer:  # doctest: +SKIP
        ...     entry = writer.tensor(array)
        ...     writer.file("decoder/int8.onnx", model_bytes)
        ...     writer.finish(lambda files: Manifest(..., files=files))
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.path = Path(path)
        if self.path.name in ("", "..") or len(os.fsencode(self.path.name)) > NAME_MAX - SIBLING_EXTRA:
            raise ExportError(
                f"{path} does not end in a name for a bundle: give one of at most {NAME_MAX - SIBLING_EXTRA} bytes"
            )
        if os.path.islink(self.path):
            # The link stays: siblings of what it points at can be renamed to that.
            self.path = Path(os.path.realpath(path))
        if os.path.lexists(self.path):
            if not overwrite:
                raise ExportError(f"{self.path} exists already: choose another folder or add --overwrite")
            if not (self.path / MANIFEST).is_file():
                raise ExportError(f"{self.path} exists and is no bundle, so it is not replaced: choose another folder")
        require_writable(self.path.parent)
        super().__init__(hidden_sibling(self.path, PARTIAL))
        self._entries: dict[str, FileEntry] = {}
        self._finished = False

    def __enter__(self) -> BundleWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            clear_abandoned(self.path)
            (self._folder / "weights").mkdir(parents=True)
        except OSError as error:
            raise ExportError(f"cannot write to {self.path.parent} ({error.strerror}): choose another folder") from None
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if not self._finished:
            shutil.rmtree(self._folder, ignore_errors=True)

    def file(self, name: str, content: bytes) -> str:
        """Write one file of the bundle; returns its name."""
        self._entries.pop(name, None)
        return super().file(name, content)

    def adopt(self, source: Path, name: str, *, link: bool) -> None:
        """Take a finished file as file ``name``: a copy, or with ``link`` the same bytes, where the file system can.

        A link must not outlive the export: onnx refuses files of several names.
        """
        path = self._folder / name
        if path.exists():  # a tensor that is shared
            return
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if link:
                with contextlib.suppress(OSError):
                    os.link(source, path)
                    return
            shutil.copyfile(source, path)

    def draft(self, manifest: Callable[[dict[str, FileEntry]], Manifest]) -> Bundle:
        """Write the manifest over all files written so far and open the folder being filled, to try the bundle out."""
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if path.is_file() and name != MANIFEST and name not in self._entries:
                self._entries[name] = FileEntry(file_sha256(path), path.stat().st_size)
        write(self._folder / MANIFEST, manifest(dict(sorted(self._entries.items()))).to_json().encode())
        try:
            return Bundle(self._folder)
        except BundleError as error:
            raise ExportError(f"the bundle did not pass its own check: {error}") from error

    def finish(self, manifest: Callable[[dict[str, FileEntry]], Manifest]) -> Bundle:
        """Write the manifest, check the folder by opening it, and move it into place."""
        self.draft(manifest)
        retired = self._folder.with_name(self._folder.name + "-old")
        with writing(self.path):
            if self.path.exists():
                self.path.rename(retired)
            try:
                self._folder.rename(self.path)
            except OSError:
                if retired.exists():
                    retired.rename(self.path)
                raise
        self._finished = True
        shutil.rmtree(retired, ignore_errors=True)
        return Bundle(self.path)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line what the file system refuses, as a full disk does.

    Raises:
        ExportError: For every OSError.
    """
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"cannot write {path} ({error.strerror or error}): finished parts are kept, so mend that and run it again"
        ) from None


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a file and the folders it is in."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def require_writable(folder: Path) -> None:
    """Raise unless a folder is there and can be written to, or can be made; nothing is made.

    Raises:
        ExportError: It is not, and cannot be.
    """
    place = folder.absolute()
    while not os.path.lexists(place) and place != place.parent:
        if len(os.fsencode(place.name)) > NAME_MAX:
            raise ExportError(f"{folder} cannot be made (File name too long): choose another folder")
        place = place.parent
    if not place.is_dir():
        raise ExportError(f"{folder} cannot be made ({place} is no folder): choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ExportError(f"cannot write to {place} (it is read-only for this user): choose another folder")


def hidden_sibling(path: Path, kind: str) -> Path:
    """A folder beside a bundle that is this process's own: ``.NAME.KIND-PROCESS.STARTED``.

    Process numbers are used again, so when the process started stands beside its number.
    """
    process = os.getpid()
    started = started_at(process)
    return path.absolute().with_name(f".{path.name}.{kind}-{process}" + (f".{started}" if started else ""))


def clear_abandoned(path: Path) -> None:
    """Remove what killed exports to the same place left, and put back a bundle whose replacement never arrived."""
    for leftover in abandoned(path, PARTIAL):
        if leftover.name.endswith("-old") and not path.exists():
            leftover.rename(path)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


def abandoned(path: Path, kind: str) -> list[Path]:
    """Hidden folders beside a bundle, named as by `hidden_sibling`, whose process is gone."""
    start = f".{path.name}.{kind}-"
    found = (folder for folder in path.absolute().parent.iterdir() if folder.name.startswith(start))
    return [folder for folder in found if not owned(folder.name.removeprefix(start).partition("-")[0])]


def owned(owner: str) -> bool:
    """Whether the process of this number, and of this start, runs and is another. This one's earlier ones are gone."""
    process, _, started = owner.partition(".")
    if not process.isdigit() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return not started or started_at(int(process)) in (started, "")


def started_at(process: int) -> str:
    """When a process started, in ticks since boot; "" where the system does not say."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[STARTED_FIELD]
