"""What a checkpoint's folder holds beside its weights goes into the bundle, or stops the export."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from tiny_export import SHORTEST_OPTIONS

from edgevtc import Runner
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
