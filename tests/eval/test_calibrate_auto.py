"""The calibration of `--budget auto` on made-up answers whose best choice is known."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle

from edgevtc.bundle import AutoEntry, Bundle

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from calibrate_auto import Answers, calibrate, cross_validated, outcome, part, tried, write_entries

BUDGETS = np.array([10, 35, 40])


def answers(telling):
    """400 questions about 100 clips; the largest budget is always right, the smallest half the time.

    A margin of a telling model is low where the answer is wrong; of the other it says nothing.
    """
    rng = np.random.default_rng(0)
    right = np.column_stack([rng.random(400) < 0.5, rng.random(400) < 0.5, np.ones(400, bool)])
    noise = rng.random((400, 3))
    margins = np.where(right, 0.5, 0.0) + 0.4 * noise if telling else noise
    return Answers(BUDGETS, np.repeat(np.arange(100), 4), right, margins)


def test_what_is_tried_and_counted():
    given = part(answers(True), np.arange(400) < 8)
    found = tried(given, AutoEntry((10, 40), 0.45))
    wrong = ~given.right[:, 0]
    assert found[:, 0].all() and not found[:, 1].any() and (found[:, 2] == wrong).all()
    total = outcome(given, found)
    assert total.tokens_prefilled == pytest.approx(10 + 40 * wrong.mean())
    assert total.tokens_kept == pytest.approx(10 + 30 * wrong.mean())
    assert total.accuracy.accuracy == 1.0


def test_a_telling_margin_is_used():
    entry = calibrate(answers(True), 1.0)
    assert entry.budgets == (10, 40) and 0.35 < entry.margin < 0.6
    total = cross_validated(answers(True), 1.0)
    assert total.accuracy.accuracy > 0.98 and total.tokens_prefilled < 32


def test_a_margin_that_says_nothing_is_not():
    assert calibrate(answers(False), 1.0) == AutoEntry((40,), 0.0)
    assert cross_validated(answers(False), 1.0).tokens_prefilled == 40


def test_what_was_found_is_written_into_the_manifest(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = write_tiny_bundle(tmp_path / "bundle")
    write_entries(bundle, {"uniform": AutoEntry((9,), 0.25)})
    write_entries(Bundle(bundle.path), {"infomerge": AutoEntry((5,), 0.5)})
    assert Bundle(bundle.path).manifest.auto == {"uniform": AutoEntry((9,), 0.25), "infomerge": AutoEntry((5,), 0.5)}
