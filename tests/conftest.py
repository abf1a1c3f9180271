"""What all tests share."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

# Threads of BLAS beside those of other processes only get into each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell has its jobs in the background ignore Ctrl-C, which tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path.insert(0, str(Path(__file__).parent))

#: A test module with this line needs the export extra.
EXPORT_MARK = "pytestmark = pytest.mark.export"

SAMPLES = Path(__file__).parent.parent / "samples"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--device-side``: only what runs where torch is not installed; ``--every-size``: what takes long."""
    parser.addoption("--device-side", action="store_true", help="leave out the tests that need the export extra")
    parser.addoption("--every-size", action="store_true", help="trace and run every method at the larger sizes as well")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Modules of the exporting side import torch at their top, so they must not even be collected.

    Nor must a folder of nothing else: its conftest imports torch as well.
    """
    if not config.getoption("--device-side"):
        return None
    files = [collection_path] if collection_path.is_file() else list(collection_path.rglob("test_*.py"))
    modules = [file for file in files if file.suffix == ".py"]
    return (bool(modules) and all(EXPORT_MARK in file.read_text(encoding="utf-8") for file in modules)) or None


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of sample clips."""
    return SAMPLES


@pytest.fixture(scope="session")
def sample_questions() -> list[dict]:
    """The samples' questions and right answers."""
    return json.loads((SAMPLES / "questions.json").read_text(encoding="utf-8"))
