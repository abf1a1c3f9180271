"""A run's folder: what it was started with, and one line a measured clip, so that it can go on after any end."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from edgevtc.bundle import AutoEntry
from edgevtc.errors import ConfigError
from edgevtc.eval.examiner import ClipRecord
from edgevtc.files import write_whole
from edgevtc.methods import method_key
from edgevtc.records import read_record

__all__ = ["Cell", "Journal", "RunArguments"]

ARGUMENTS, RECORDS = "run.json", "records.jsonl"


@dataclass(frozen=True)
class Cell:
    """A method at a budget, as the bundle holds it."""

    method: str
    budget: int
    retention_ratio: float
    positions: str

    @property
    def name(self) -> str:
        """Key of its records."""
        return method_key(self.method, self.budget)


@dataclass(frozen=True)
class RunArguments:
    """What decides the answers of a run: equal arguments give equal answers, and only such runs share a folder.

    Attributes:
        bundle_sha256: Hash of the bundle's manifest.
        model: Its model's name.
        tokens_total: T·N.
        device: Where graphs ran.
        split: Of the world.
        seed: Of the world.
        questions: Most questions a clip.
        world: :meth:`edgevtc.eval.clips.Clips.digest`.
        cells: What was measured; the first keeps every token.
        auto: Method → how `--budget auto` goes about it. This and what follows decides no answer, and may differ.
        bundle: The bundle's folder, as it was given; None for the one inside the package.
        jobs: Processes that measured last, which times depend on.
    """

    bundle_sha256: str
    model: str
    tokens_total: int
    device: str
    split: str
    seed: int
    questions: int
    world: str
    cells: tuple[Cell, ...]
    auto: dict[str, AutoEntry]
    bundle: str | None = None
    jobs: int = 1


#: Fields that decide no answer.
_FREE = {"auto", "bundle", "jobs"}

#: Field → what a message calls it, where that is not its own name.
_WORDS = {
    "bundle_sha256": "bundle",
    "questions": "number of questions",
    "world": "version of the world",
    "cells": "choice of methods and retention ratios",
}


class Journal:
    """The folder of a run, held by one process at a time.

    Args:
        folder: Made where it is missing.
        arguments: Of the run; None takes those of the run that the folder holds.

    Attributes:
        arguments: What the run was started with.
        records: Video → what was measured on it.

    Raises:
        ConfigError: The folder holds records of a run with other arguments, another process writes to it, or it holds
            no run and no arguments are given.
    """

    def __init__(self, folder: str | os.PathLike[str], arguments: RunArguments | None = None) -> None:
        self.folder = Path(folder)
        self.records: dict[int, ClipRecord] = {}
        path = self.folder / ARGUMENTS
        if arguments is None and not path.is_file():
            raise ConfigError(f"{self.folder} holds no run: make one with edgevtc eval --out {self.folder}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.folder / RECORDS, "a+b")  # noqa: SIM115 - closed by close
        except OSError as error:
            reason = (error.strerror or "unknown").lower()
            raise ConfigError(f"{self.folder} cannot be used ({reason}): choose another folder") from None
        try:
            self._lock()
            self.records = {record.video: record for record in self._read()}
            found = read_arguments(path) if path.is_file() else None
            # A run that measured nothing, for its device could not be had, claims no folder.
            if arguments is not None and found is not None and self.records:
                refuse_others(self.folder, found, arguments)
            if arguments is not None and arguments != found:
                write_whole(path, json.dumps(asdict(arguments), indent=1) + "\n")
            self.arguments: RunArguments = arguments or found  # type: ignore[assignment]  # one of them is there
        except BaseException:
            self.close()
            raise

    def append(self, record: ClipRecord) -> None:
        """Keep a record: whole on disk when this returns."""
        self._file.write(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records[record.video] = record

    def close(self) -> None:
        """Let others have the folder."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another process is measuring into {self.folder}: wait for it, or use another") from None

    def _read(self) -> Iterator[ClipRecord]:
        """The records; what a killed process left of a line is cut off."""
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(whole)
                return
            whole += len(line)
            where = f"{self.folder / RECORDS}, line {number}"
            yield read_record(ClipRecord, parse(line, where), where, ConfigError)


def parse(text: str | bytes, where: str) -> Any:
    """Parsed JSON.

    Raises:
        ConfigError: It is none.
    """
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError(f"{where} was altered (it is not JSON): start the run again in another folder") from None


def read_arguments(path: Path) -> RunArguments:
    """What a run was started with."""
    return read_record(RunArguments, parse(path.read_bytes(), str(path)), str(path), ConfigError)


def refuse_others(folder: Path, found: RunArguments, wanted: RunArguments) -> None:
    """Raise a ConfigError that names the first argument in which a folder's run differs from the wanted one."""
    for entry in fields(RunArguments):
        there, here = getattr(found, entry.name), getattr(wanted, entry.name)
        if there == here or entry.name in _FREE:
            continue
        what = _WORDS.get(entry.name, entry.name)
        values = f" ({there}, now {here})" if len(f"{there}{here}") < 80 else ""
        raise ConfigError(
            f"{folder} holds a run with another {what}{values}: give the arguments it began with, or another --out"
        )
