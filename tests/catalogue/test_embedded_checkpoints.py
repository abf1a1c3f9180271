"""The checkpoints that ship in the package: one for every recipe that names them, alike but for their weights."""

from __future__ import annotations

import json

import pytest

from edgevtc.catalogue import model_names, model_recipe
from edgevtc.exporter.source import find_checkpoint

pytestmark = pytest.mark.export

EMBEDDED = [name for name in model_names() if model_recipe(name).source == "embedded"]


def test_there_is_one_that_never_saw_a_reduced_clip_and_one_that_did() -> None:
    assert EMBEDDED == ["embedded", "embedded-aware"]
    stages = [json.loads((find_checkpoint(name)[0] / "training.json").read_text())["stage"] for name in EMBEDDED]
    assert "reduced" not in stages[0]
    assert "reduced" in stages[1]


def test_they_differ_in_their_weights_alone() -> None:
    clean, aware = (find_checkpoint(name)[0] for name in EMBEDDED)
    for file in clean.iterdir():
        same = file.read_bytes() == (aware / file.name).read_bytes()
        assert same == (file.name not in ("model.safetensors", "heads.safetensors", "training.json")), file.name
