"""Open a bundle: check its schema, its hashes and its paths before anything of it is used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path, PurePosixPath

import numpy as np

from edgevtc.bundle.manifest import Manifest, TensorEntry
from edgevtc.errors import BundleError
from edgevtc.files import write_whole

__all__ = ["Bundle", "cache_dir", "embedded_path", "file_sha256", "read_text"]

MANIFEST = "manifest.json"

#: How a graph names a file of the weight store.
WEIGHT = re.compile(rb"weights/[0-9a-f]{32}")


class Bundle:
    """An opened bundle.

    Args:
        path: The bundle's folder, or None for the one inside the package.
        rehash: Hash every file, also where an earlier opening did and size, times and inode have not changed.

    Raises:
        BundleError: No bundle there, or it is incomplete, altered, or of another version.

    Example:
        >>> from edgevtc.bundle import Bundle
        >>> bundle = Bundle()
        >>> bundle.manifest.model.family
        'llava_onevision'
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, rehash: bool = False) -> None:
        self.path = embedded_path() if path is None else Path(path)
        manifest = self.path / MANIFEST
        if not manifest.is_file():
            found = "no such folder" if not self.path.exists() else f"it holds no {MANIFEST}"
            raise BundleError(f"{self.path} is not a bundle ({found}): make one with edgevtc export MODEL -o DIR")
        text = read_text(manifest)
        self.manifest = Manifest.from_json(text)
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._check_files(rehash)

    def file(self, name: str) -> Path:
        """Path of a file the manifest lists.

        Raises:
            BundleError: The manifest does not list it, or it leads out of the folder.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: the manifest lists no file {name!r}")
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or "\\" in name or "\0" in name:
            raise BundleError(f"{self.path}: the manifest names {name!r}, which leads out of the bundle")
        path = self.path / relative
        if path.is_symlink() or not path.resolve().is_relative_to(self.path.resolve()):
            raise BundleError(f"{self.path}: {name} is a link that leads out of the bundle")
        return path

    def weights(self, graph: str) -> set[str]:
        """Files of the weight store that a graph reads."""
        return {name.decode() for name in WEIGHT.findall(self.file(graph).read_bytes())}

    def tensor(self, entry: TensorEntry) -> np.ndarray:
        """A tensor of the store, memory-mapped and read-only."""
        path, dtype = self.file(entry.file), np.dtype(entry.dtype)
        if path.stat().st_size != dtype.itemsize * int(np.prod(entry.shape)):
            raise BundleError(f"{path} does not hold {entry.shape} values of {entry.dtype}: export the bundle again")
        return np.memmap(path, dtype=dtype, mode="r", shape=entry.shape)

    def _check_files(self, rehash: bool) -> None:
        """Every listed file has its size and its content hash; what was hashed unchanged before is not hashed again."""
        stamp = cache_dir() / "verified" / f"{self.sha256}.json"
        seen = read_stamp(stamp)
        found = {}
        for name, entry in self.manifest.files.items():
            path = self.file(name)
            if not path.is_file():
                raise BundleError(f"{self.path} is incomplete, {name} is missing: export or copy the bundle again")
            status = path.stat()
            if status.st_size != entry.size:
                raise BundleError(
                    f"{self.path}: {name} has {status.st_size} bytes instead of {entry.size}: "
                    "export or copy the bundle again"
                )
            # The time of change, too: that of modification can be set back.
            found[str(path.resolve())] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if found == seen and not rehash:
            return
        for name, entry in self.manifest.files.items():
            if file_sha256(self.file(name)) != entry.sha256:
                graphs = (graph for graph in self.manifest.graphs if graph in self.manifest.files)
                reader = next((graph for graph in graphs if name in self.weights(graph)), "")
                what = f"its hash differs; {reader} reads it" if reader else "its hash differs"
                raise BundleError(f"{self.path}: {name} was altered ({what}): export or copy the bundle again")
        write_stamp(stamp, found)


def embedded_path() -> Path:
    """Folder of the bundle that ships in the package."""
    return Path(__file__).resolve().parent.parent / "embedded" / "bundle"


def cache_dir() -> Path:
    """Folder for what can be made again, by the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgevtc"


def read_text(path: Path) -> str:
    """A text file of a bundle.

    Raises:
        BundleError: It is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is not UTF-8 ({error.reason}): export or copy the bundle again") from None


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as stream:
        value = hashlib.sha256()
        while block := stream.read(1 << 20):
            value.update(block)
    return value.hexdigest()


def read_stamp(path: Path) -> dict[str, list[int]]:
    """What an earlier opening verified, or nothing."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(path: Path, found: dict[str, list[int]]) -> None:
    """Remember what was verified; without a writable cache the next opening hashes again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(found))
