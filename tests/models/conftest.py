"""A tiny LLaVA-OneVision with a pooling head, written once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration


@pytest.fixture(scope="session")
def tiny_model() -> LlavaOnevisionForConditionalGeneration:
    """The model as transformers has it."""
    from tiny_checkpoint import build_model

    return build_model()


@pytest.fixture(scope="session")
def tiny_folder(tiny_model: LlavaOnevisionForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint."""
    from tiny_checkpoint import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny", tiny_model)
