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


#: A checkpoint's weights, and what was learnt with them or of them.
OWN = {"model.safetensors", "heads.safetensors", "training.json", "domain.npz", "auto.json"}


def test_they_differ_in_their_weights_and_what_follows_from_these_alone() -> None:
    clean, aware = ({file.name: file.read_bytes() for file in find_checkpoint(name)[0].iterdir()} for name in EMBEDDED)
    assert clean.keys() - OWN == aware.keys() - OWN
    for name in clean.keys() & aware.keys():
        assert (clean[name] == aware[name]) == (name not in OWN), name
