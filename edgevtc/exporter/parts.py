"""Finished parts of an export, each kept under a fingerprint of all that it depends on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgevtc.bundle import BundleWriter, FolderWriter
from edgevtc.bundle.reader import file_sha256
from edgevtc.bundle.writer import abandoned, hidden_sibling, writing
from edgevtc.errors import ExportError
from edgevtc.exporter.fingerprint import fingerprint
from edgevtc.exporter.progress import Progress
from edgevtc.records import read_record

__all__ = ["Part", "Parts", "working_parts"]

#: File of a part's folder: what it holds. A part without one is not finished.
RECORD = "part.json"

#: Word in the name of the folder beside a bundle in which the parts of its export stand.
WORKING = "parts"

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Part:
    """A finished part.

    Attributes:
        folder: Holds its files, by the names they have in a bundle.
        record: What its maker has to say about them, as JSON.
        files: Name → SHA-256.
        shared: Whether it stays for other exports.
    """

    folder: Path
    record: Any
    files: dict[str, str]
    shared: bool

    def entry(self, kind: type[Entry]) -> Entry:
        """The record as an entry of the manifest."""
        return read_record(kind, self.record, str(self.folder / RECORD), ExportError)

    def into(self, writer: BundleWriter) -> Part:
        """Make the files a bundle's; returns itself."""
        for name in self.files:
            self.give(writer, name)
        return self

    def give(self, writer: BundleWriter, name: str) -> None:
        """Make one file a bundle's."""
        writer.adopt(self.folder / name, name, link=not self.shared)


class Parts:
    """A folder of parts. Each appears whole or not at all, and is taken only with the bytes it was finished with.

    Args:
        folder: Made with the first part.
        shared: Whether other exports use the folder too: what does not fit this one then stays for them.
        progress: Told of each part that is taken over, or is not and why; and of each that is done.
    """

    def __init__(self, folder: Path, *, shared: bool, progress: Progress) -> None:
        self.folder, self.shared, self._progress = folder, shared, progress

    def take(
        self, name: str, depends: Mapping[str, Any], make: Callable[[FolderWriter], object], *, anew: bool = False
    ) -> Part:
        """A part that was finished before, or one that is made now.

        Args:
            name: Of the part, in words; a `/` is written as `-`.
            depends: All that decides its content, as JSON; a path stands for what the files there hold.
            make: Writes its files; what it returns, a manifest's entry or JSON, becomes the part's record.
            anew: Whether another process of this export has just made it, which is nothing to tell.

        Raises:
            ExportError: The folder cannot be written; and whatever `make` raises.
        """
        stem, folder = self._place(name, depends)
        if folder.is_dir():
            if (part := self._read(folder)) is not None:
                if not anew:
                    self._progress(f"taking {name} as it was finished before")
                self._progress.done(name)
                return part
            self._progress(f"leaving out {name} as it was left before: it is damaged")
            with writing(folder):
                shutil.rmtree(folder)
        elif not self.shared and (others := [*self.folder.glob(f"{stem}.*")]):
            if any((other / RECORD).is_file() for other in others):
                self._progress(f"leaving out {name} as it was left before: model, options or code are others now")
            with writing(self.folder):
                for other in others:
                    shutil.rmtree(other)
        part = self._make(folder, make)
        self._progress.done(name)
        return part

    def holds(self, name: str, depends: Mapping[str, Any]) -> bool:
        """Whether a part stands here already, be it damaged."""
        return self._place(name, depends)[1].is_dir()

    def _place(self, name: str, depends: Mapping[str, Any]) -> tuple[str, Path]:
        stem = name.replace("/", "-").replace(" ", "-")
        return stem, self.folder / f"{stem}.{fingerprint(depends)}"

    def _make(self, folder: Path, make: Callable[[FolderWriter], object]) -> Part:
        draft = folder.with_name(f"{folder.name}-{os.getpid()}")
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        except OSError as error:
            raise ExportError(f"cannot write to {self.folder} ({error.strerror}): choose another folder") from None
        try:
            record = make(FolderWriter(draft))
            if record is not None and not isinstance(record, dict):
                record = asdict(record)  # type: ignore[call-overload]  # an entry of the manifest
            with writing(folder):
                files = {path.relative_to(draft).as_posix(): file_sha256(path) for path in all_files(draft)}
                (draft / RECORD).write_text(json.dumps({"record": record, "files": files}), encoding="utf-8")
                if not folder.exists():  # another export may have finished the same meanwhile
                    draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        part = self._read(folder)
        if part is None:  # it was just finished
            raise ExportError(f"{folder} was altered while it was made: run it again, and one export at a time")
        return part

    def _read(self, folder: Path) -> Part | None:
        """A finished part; None where it is damaged."""
        try:
            held = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            part = Part(folder, held["record"], held["files"], self.shared)
            intact = all(file_sha256(folder / name) == sha256 for name, sha256 in part.files.items())
        except (OSError, ValueError, KeyError):
            return None
        return part if intact else None

    def size(self) -> int:
        """Bytes of everything in the folder."""
        return sum(path.stat().st_size for path in all_files(self.folder))

    def clear(self) -> None:
        """Remove every part."""
        shutil.rmtree(self.folder, ignore_errors=True)


def working_parts(output: Path, progress: Progress) -> Parts:
    """The parts of a bundle's export, with those that an interrupted one to the same place has left.

    They stand in a hidden folder beside the bundle and of this process, which others leave alone while it lives.
    """
    folder = hidden_sibling(output, WORKING)
    if output.absolute().parent.is_dir():
        with writing(folder):
            for leftover in sorted(abandoned(output, WORKING), key=lambda path: path.stat().st_mtime, reverse=True):
                if not folder.exists():
                    leftover.rename(folder)
                elif leftover != folder:
                    shutil.rmtree(leftover, ignore_errors=True)
    return Parts(folder, shared=False, progress=progress)


def all_files(folder: Path) -> list[Path]:
    """Files at any depth, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
