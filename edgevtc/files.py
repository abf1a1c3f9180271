"""Files that appear whole or not at all, and the disk they go to."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["nearest_folder", "write_whole"]


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, or leave what stood there.

    Raises:
        OSError: The folder cannot be written to.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def nearest_folder(path: Path) -> Path:
    """The path itself, or of the folders it would stand in the nearest that is there: its disk is the path's."""
    while not path.exists():
        path = path.parent
    return path
