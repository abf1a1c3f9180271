"""What all tests share."""

import json
import os
import sys
from pathlib import Path

import pytest

# Threads of BLAS beside those of other processes only get into each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))

#: A test module with this line needs the export extra.
EXPORT_MARK = "pytestmark = pytest.mark.export"

SAMPLES = Path(__file__).parent.parent / "samples"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--device-side``: only what runs where torch is not installed."""
    parser.addoption("--device-side", action="store_true", help="leave out the tests that need the export extra")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Modules of the exporting side import torch at their top, so they must not even be collected."""
    if config.getoption("--device-side") and collection_path.suffix == ".py":
        return EXPORT_MARK in collection_path.read_text(encoding="utf-8") or None
    return None


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of sample clips."""
    return SAMPLES


@pytest.fixture(scope="session")
def sample_questions() -> list[dict]:
    """The samples' questions and right answers."""
    return json.loads((SAMPLES / "questions.json").read_text(encoding="utf-8"))
