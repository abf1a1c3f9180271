"""The catalogues lie at the top of the repository and must be found from a checkout, an installation and a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Prints what the catalogues hold, without the finder of an editable installation of this very checkout.
PROGRAM = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import edgevtc
from edgevtc.catalogue import device_names, model_names, model_recipe
print(edgevtc.__file__, len(device_names()), *model_names(), model_recipe("embedded").num_frames, sep="\\n")
"""


def catalogues_seen_from(path: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=path,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    file, *seen = done.stdout.splitlines()
    assert Path(file).is_relative_to(path)
    return seen


def expected() -> list[str]:
    devices = len(list((ROOT / "engines").glob("*.toml")))
    return [str(devices), *sorted(file.stem for file in (ROOT / "export").glob("*.toml")), "16"]


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_plain_checkout_finds_them() -> None:
    assert catalogues_seen_from(ROOT) == expected()


def test_a_built_package_carries_them(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "README.md").write_text("EdgeVTC\n", encoding="utf-8")
    for name in ("export", "engines", "edgevtc", "optimum"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build", "--build-lib"]
    subprocess.run([*command, str(tmp_path / "built")], cwd=source, capture_output=True, check=True)
    embedded = Path("edgevtc", "embedded")
    assert files_below(tmp_path / "built" / embedded) == files_below(source / embedded) != set()
    shutil.rmtree(source)
    assert catalogues_seen_from(tmp_path / "built") == expected()
