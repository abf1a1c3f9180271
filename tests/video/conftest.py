"""What the tests of the video part share."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder writes a page of settings otherwise

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A folder for clips that are written once."""
    return tmp_path_factory.mktemp("clips")
