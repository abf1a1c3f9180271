"""A folder of TOML files that ships in the package: its names, and one file read into a typed record."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import edgevtc
from edgevtc.errors import ConfigError, choices
from edgevtc.records import read_record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["Shelf"]

Record = TypeVar("Record")
SUFFIX = ".toml"


@dataclass(frozen=True)
class Shelf(Generic[Record]):
    """One catalogue.

    Attributes:
        kind: Dataclass of an entry: the schema of its file.
        what: An entry in messages, as in ``"model recipe"``.
        package: Importable package that holds the files.
        checkout: The same folder at the top of a checkout that is not installed.
        command: How the user sees the names.
    """

    kind: type[Record]
    what: str
    package: str
    checkout: str
    command: str

    def folder(self) -> Traversable:
        """Where the files are."""
        try:
            return resources.files(self.package)
        except ModuleNotFoundError:
            # Only an installation maps the folder into the package; without one it lies beside it.
            return Path(edgevtc.__file__).resolve().parents[1] / self.checkout

    def names(self) -> list[str]:
        """Names of the catalogue's entries, sorted."""
        return sorted(file.name.removesuffix(SUFFIX) for file in self.folder().iterdir() if file.name.endswith(SUFFIX))

    def read(self, name_or_path: str | os.PathLike[str]) -> Record:
        """The entry of this name, or the one in a user's own file.

        Raises:
            ConfigError: No such name or file, or the file is not valid; the message names file and field.
        """
        text = os.fspath(name_or_path)
        if not text.endswith(SUFFIX):
            if text not in self.names():
                raise ConfigError(
                    f"no {self.what} is named {text!r}: {choices(self.names())}, or the path of a {SUFFIX} file"
                )
            return self.parse(self.folder() / f"{text}{SUFFIX}")
        if not Path(text).is_file():
            raise ConfigError(f"{text} does not exist: give the path of a {SUFFIX} file, or a name of {self.command}")
        return self.parse(Path(text))

    def parse(self, file: Traversable) -> Record:
        """Read one file."""
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{file} cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise ConfigError(f"{file} is not TOML: {error}") from None
        try:
            return read_record(self.kind, table, self.what, ConfigError)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
