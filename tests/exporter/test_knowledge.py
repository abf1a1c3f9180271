"""What a checkpoint's folder holds beside its weights goes into the bundle, or stops the export."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_export import SHORTEST_OPTIONS

from edgevtc import Runner
from edgevtc.bundle import AutoEntry
from edgevtc.domain import Domain
from edgevtc.errors import ExportError
from edgevtc.exporter.export import export_bundle

pytestmark = pytest.mark.export


@pytest.fixture
def checkpoint(tiny_folder, traced_once, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "checkpoint")


def domain(width: int, limit: float) -> Domain:
    return Domain.of(np.random.default_rng(0).normal(size=(40, width)), 4, limit, "I have not seen the like")


def test_the_bundle_declines_what_the_checkpoint_calls_foreign(checkpoint, tmp_path, samples):
    plain = export_bundle(checkpoint, tmp_path / "plain", SHORTEST_OPTIONS)
    assert plain.manifest.domain == ""
    width = plain.manifest.vision.hidden_size
    (checkpoint / "domain.npz").write_bytes(domain(width, limit=0.0).to_bytes())
    bundle = export_bundle(checkpoint, tmp_path / "bundle", SHORTEST_OPTIONS)
    assert bundle.manifest.domain == "domain.npz"
    answer = Runner(bundle.path).open(samples / "corridor.mp4").ask("what color is the circle")
    assert (answer.answer, answer.finish_reason) == ("I have not seen the like", "foreign")


@pytest.mark.parametrize(
    ("content", "message"), [(b"text", "is damaged"), (domain(3, 1.0).to_bytes(), "tokens of width 3")]
)
def test_a_domain_that_does_not_fit_stops_the_export(checkpoint, tmp_path, content, message):
    (checkpoint / "domain.npz").write_bytes(content)
    with pytest.raises(ExportError, match=message):
        export_bundle(checkpoint, tmp_path / "bundle", SHORTEST_OPTIONS)
    assert not (tmp_path / "bundle").exists()


def test_the_bundle_carries_what_it_holds_of_a_calibration(checkpoint, tmp_path):
    fits, lacks = {"budgets": [4], "margin": 0.25}, {"budgets": [2, 4], "margin": 0.5}
    (checkpoint / "auto.json").write_text(json.dumps({"uniform": fits, "infomerge": fits, "random": lacks}))
    options = replace(SHORTEST_OPTIONS, methods=("uniform", "random"))
    manifest = export_bundle(checkpoint, tmp_path / "bundle", options).manifest
    assert {(entry.name, entry.budget) for entry in manifest.methods} == {("uniform", 4), ("random", 4)}
    assert manifest.auto == {"uniform": AutoEntry((4,), 0.25)}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "is not JSON"),
        ("[]", "is not JSON of methods"),
        ('{"uniform": {"budgets": [4]}}', "uniform: field 'margin' is missing"),
        ('{"uniform": {"budgets": [4], "margin": 0.5, "drop": 1}}', "unknown field 'drop'"),
        ('{"uniform": {"budgets": ["4"], "margin": 0.5}}', "'4' is not of type int"),
        ('{"uniform": {"budgets": [4, 2], "margin": 0.5}}', "rising budgets"),
        ('{"uniform": {"budgets": [], "margin": 0.5}}', "budgets: [] is not valid: give at least one"),
        ('{"uniform": {"budgets": [4], "margin": NaN}}', "a margin of 0 or more"),
        ('{"uniform": {"budgets": [4], "margin": Infinity}}', "a margin of 0 or more"),
    ],
)
def test_a_damaged_calibration_stops_the_export_before_any_work(checkpoint, tmp_path, content, named):
    (checkpoint / "auto.json").write_text(content)
    with pytest.raises(ExportError) as error:
        export_bundle(checkpoint, tmp_path / "bundle", SHORTEST_OPTIONS)
    assert named in str(error.value) and "auto.json" in str(error.value) and "\n" not in str(error.value)
    assert [*tmp_path.iterdir()] == [checkpoint]
