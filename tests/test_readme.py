"""The README's own commands and code, run as they stand."""

import re
import shlex
from pathlib import Path

import pytest

from edgevtc.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def console_lines():
    """(command, expected lines of stdout) of every `$ edgevtc …` in the README's console blocks."""
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in block.split("$ ")[1:]:
            command, *expected = part.strip().splitlines()
            if command.startswith("edgevtc "):
                yield command, expected


COMMANDS = list(console_lines())


def test_the_readme_shows_commands():
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize("expect_torch", [False, True], ids=["device side", "export side"])
def test_the_readmes_commands(expect_torch, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    exported = False
    for command, expected in COMMANDS:
        words = shlex.split(command.replace("/tmp/edgevtc-readme-bundle", str(tmp_path / "bundle")))
        needs_torch = words[1] == "export" or "--bundle" in words
        if needs_torch != expect_torch:
            continue
        if needs_torch and not exported:
            pytest.importorskip("torch", reason="exporting needs the export extra")
            exported = True
        assert main(words[1:]) == 0
        assert capsys.readouterr().out.splitlines()[: len(expected)] == expected


def test_the_readmes_python(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.split()[1:3] == ["144", "576"]
