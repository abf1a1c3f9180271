"""The method in CONTRIBUTING.md, installed as the package it says it is, is listed, made, run and exported."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.export

ROOT = Path(__file__).parents[2]

USE = """
import json, torch
from edgevtc.cli import main
from edgevtc.compressors import create
from edgevtc.exporter.contract import check_graph
from edgevtc.exporter.vision import export_compressor
from edgevtc.methods import method_names, method_spec

method = create("motion", 5, 16, 23, calm=0.5)
x = torch.randn(5, 16, 12, generator=torch.Generator().manual_seed(0))
x[2] = x[1]
tokens, positions, counts, assignment = method(x)
print(json.dumps({
    "names": method_names(),
    "summary": method_spec("motion").summary,
    "shape": list(tokens.shape),
    "exact": torch.equal(tokens, x.reshape(80, 12)[positions.long()]),
    "ascending": bool((positions[1:] > positions[:-1]).all()),
    "breaches": list(map(str, check_graph(export_compressor(method, {"frame_tokens": (5, 16, 12)}), "compressor"))),
    "kept": torch.bincount(positions.long() // 16, minlength=5).tolist(),
}))
main(["list", "methods"])
"""


def block(language: str, opening: str) -> str:
    """The code block of CONTRIBUTING.md that begins like this."""
    blocks = re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S
    )
    (found,) = [text for text in blocks if text.startswith(opening)]
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package of the two blocks, as they stand, installed in it; edgevtc itself is there already."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(block("toml", "[project]"), encoding="utf-8")
    (source / "edgevtc_motion.py").write_text(block("python", '"""motion'), encoding="utf-8")
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(folder), "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def python(site: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_is_short():
    assert len(block("python", '"""motion').splitlines()) < 40


def test_the_example_works_as_an_installed_package(site):
    first, *table = python(site, "-c", USE).splitlines()
    found = json.loads(first)
    assert found["names"][-1] == "motion" and "changed most" in found["summary"]
    assert found["shape"] == [23, 12] and found["exact"] and found["ascending"]
    assert sum(found["kept"]) == 23 and found["kept"][2] == min(found["kept"])
    assert found["breaches"] == []
    assert any(row.split()[:1] == ["motion"] for row in table)


def test_it_is_gone_without_the_package(tmp_path):
    assert "motion" not in python(tmp_path, "-c", "from edgevtc.methods import method_names; print(method_names())")
