"""The errors a user can meet. Each message is one line: what is wrong, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "BackendError",
    "BundleError",
    "ConfigError",
    "EdgeVTCError",
    "ExportError",
    "MissingExtraError",
    "VideoError",
    "choices",
    "one_line",
]


class EdgeVTCError(Exception):
    """Base of every error that is the input's or the environment's fault; the CLI prints it without a traceback."""


class ConfigError(EdgeVTCError, ValueError):
    """An argument is out of range, of the wrong kind, or unknown."""


class VideoError(EdgeVTCError):
    """A video is missing, unreadable, or holds no picture."""


class BundleError(EdgeVTCError):
    """A bundle is missing, incomplete, altered, or of another schema version."""


class BackendError(EdgeVTCError):
    """A backend cannot serve a graph on this machine."""


class ExportError(EdgeVTCError):
    """A checkpoint cannot be exported, or its graph breaks the graph contract."""


class MissingExtraError(EdgeVTCError, ImportError):
    """A library of an optional extra is not installed."""


def choices(values: Iterable[object]) -> str:
    """The valid values, for the end of an error message: ``one of: a, b, c``."""
    return "one of: " + ", ".join(str(value) for value in values)


def one_line(error: BaseException) -> str:
    """A library's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
