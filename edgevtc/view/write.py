"""Write a picture whole or not at all, in the format its name asks for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgevtc.errors import ConfigError, choices
from edgevtc.files import write_whole
from edgevtc.view.html import render_html
from edgevtc.view.png import render_png
from edgevtc.view.scene import Scene

__all__ = ["FORMATS", "check_output", "write_view"]

#: Suffix → the file's content.
FORMATS: dict[str, Callable[[Scene], bytes]] = {".html": render_html, ".png": render_png}


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Refuse, before any work is done, what :func:`write_view` could not write.

    Raises:
        ConfigError: The suffix is none of :data:`FORMATS`, the folder is missing, or something stands there that
            must not be replaced.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path} does not say which format to write: its name must end in {choices(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder, so {path.name} cannot stand in it: make it or choose another")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: choose another name")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists already: choose another name or add --overwrite")
    return path


def write_view(scene: Scene, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Draw a scene and write it; the suffix, `.html` or `.png`, chooses the format.

    Raises:
        ConfigError: As for :func:`check_output`, or the folder cannot be written to.
    """
    path = check_output(path, overwrite)
    content = FORMATS[path.suffix.lower()](scene)
    try:
        write_whole(path, content)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({(error.strerror or 'unknown').lower()}): choose another"
        ) from None
    return path
