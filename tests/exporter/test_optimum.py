"""`optimum-cli export edgevtc` is `edgevtc export`: run through optimum's own program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgevtc.bundle import Bundle
from edgevtc.cli import main

pytestmark = pytest.mark.export

ROOT = Path(__file__).parents[2]
STEPS = ("reading", "tracing", "writing", "computing", "verifying")
PROGRAM = Path(sys.executable).with_name("optimum-cli")


def optimum(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), "export", "edgevtc", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_takes_the_same_options(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    own = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert len(own) > 15
    assert set(re.findall(r"--[a-z-]+", optimum("--help").stdout)) == own


def test_it_exports_a_verified_bundle(tiny_folder, tmp_path):
    words = ["--num-frames", "2", "--retention-ratio", "0.5", "--weight-format", "fp32", "--no-fused", "--json"]
    done = optimum(tiny_folder, "-o", tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()  # nothing but the names of the steps
    assert lines[0] == "reading the vision tower" and all(line.split()[0] in STEPS for line in lines), done.stderr
    report = json.loads(done.stdout)
    bundle = Bundle(tmp_path / "out")
    assert report["sha256"] == bundle.sha256 and bundle.manifest.verification.differences
    assert report["methods"] == [{"name": "uniform", "budget": 4, "retention_ratio": 0.5}]


def test_it_fails_like_the_original(tmp_path):
    done = optimum("no-such-model", "-o", tmp_path / "out")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("optimum-cli export edgevtc: error: no checkpoint folder")
    assert "Traceback" not in done.stderr
