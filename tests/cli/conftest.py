"""What the tests of the command line share."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bundle import write_tiny_bundle

from edgevtc.bundle import Bundle
from edgevtc.cli import main


@pytest.fixture
def tiny_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle of a few kilobytes, and a cache of its own for what was verified."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def edgevtc(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[object, str, str]]:
    """Run a command line, with nothing on standard input if not told; returns (exit code, stdout, stderr).

    In this process, since another would spend most of its time on imports.
    """

    def run(*arguments: object, stdin: str = "") -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            code: object = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        output = capsys.readouterr()
        return code, output.out, output.err

    return run
