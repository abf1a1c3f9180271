"""The calibration of `--budget auto` on made-up answers whose best choice is known, and on runs made of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgevtc.bundle import AutoEntry
from edgevtc.eval.auto import Answers, answers_of, outcome, tried
from edgevtc.eval.examiner import Asked, CellRecord, ClipRecord
from edgevtc.eval.journal import Cell, Journal, RunArguments
from edgevtc.exporter.knowledge import read_auto

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from calibrate_auto import calibrate, cross_validated, main

BUDGETS = np.array([10, 35, 40])
CLIPS, EACH = 100, 4

FULL = Cell("none", 100, 1.0, "original")
CELLS = (FULL, *(Cell(name, b, b / 100, "original") for name in ("holitom", "uniform") for b in (40, 35, 10)))
ARGUMENTS = RunArguments("ab" * 32, "a model", 100, "cpu", "dev", 7, EACH, "cd" * 32, CELLS, {})


def answers(telling: bool) -> Answers:
    """400 questions about 100 clips; the largest budget is always right, the smallest half the time.

    A margin of a telling model is low where the answer is wrong; of the other it says nothing.
    """
    rng = np.random.default_rng(0)
    right = np.column_stack([rng.random(400) < 0.5, rng.random(400) < 0.5, np.ones(400, bool)])
    noise = rng.random((400, 3))
    margins = np.where(right, 0.5, 0.0) + 0.4 * noise if telling else noise
    return Answers(BUDGETS, np.repeat(np.arange(CLIPS), EACH), right, margins)


def write_run(folder: Path, arguments: RunArguments = ARGUMENTS, clips: int = CLIPS) -> Path:
    """A run in which holitom's margins are telling and uniform's are not; its last clips were measured first."""
    given = {"holitom": answers(True), "uniform": answers(False)}

    def cell_record(cell: Cell, video: int) -> CellRecord:
        if cell == FULL:
            return CellRecord(("red",) * EACH, (1.0,) * EACH, 0.0, 0.0, 0.0)
        rows, column = slice(EACH * video, EACH * (video + 1)), BUDGETS.tolist().index(cell.budget)
        right, margins = given[cell.method].right[rows, column], given[cell.method].margins[rows, column]
        return CellRecord(tuple("red" if hit else "blue" for hit in right), tuple(margins.tolist()), 0.0, 0.0, 0.0)

    asked = (Asked("color", "what color is it", "red"),) * EACH
    with Journal(folder, arguments) as journal:
        for video in reversed(range(clips)):
            found = {cell.name: cell_record(cell, video) for cell in arguments.cells}
            journal.append(ClipRecord(video, {}, asked, (), (), 0.0, 0.0, 0.0, found))
    return folder


@pytest.fixture(scope="module")
def dev_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def test_what_is_tried_and_counted():
    given = answers(True).part(np.arange(400) < 8)
    found = tried(given, AutoEntry((10, 40), 0.45))
    wrong = ~given.right[:, 0]
    assert found[:, 0].all() and not found[:, 1].any() and (found[:, 2] == wrong).all()
    total = outcome(given, found)
    assert total.tokens_prefilled == pytest.approx(10 + 40 * wrong.mean())
    assert total.tokens_kept == pytest.approx(10 + 30 * wrong.mean())
    assert total.accuracy.accuracy == 1.0
    assert (total.fixed_budget, total.minus_fixed.value) == (35, 1 - given.right[:, 1].mean())


def test_a_telling_margin_is_used():
    entry = calibrate(answers(True), 1.0)
    assert entry.budgets == (10, 40) and 0.35 < entry.margin < 0.6
    total = cross_validated(answers(True), 1.0)
    assert total.accuracy.accuracy > 0.98 and total.tokens_prefilled < 32


def test_a_margin_that_says_nothing_is_not():
    assert calibrate(answers(False), 1.0) == AutoEntry((40,), 0.0)
    assert cross_validated(answers(False), 1.0).tokens_prefilled == 40


def test_answers_are_those_of_the_run(dev_run):
    with Journal(dev_run) as journal:
        found = answers_of(list(journal.records.values()), [cell for cell in CELLS if cell.method == "holitom"])
    order, made = np.argsort(found.videos, kind="stable"), answers(True)
    assert np.array_equal(found.budgets, BUDGETS) and np.array_equal(found.videos[order], made.videos)
    assert np.array_equal(found.right[order], made.right) and np.array_equal(found.margins[order], made.margins)


def test_a_run_is_calibrated_by_and_an_export_reads_what_was_found(dev_run, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "auto.json").write_text("of other weights")
    assert main([str(dev_run), "--json", "--write", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    telling, silent = report["methods"]
    assert (telling["method"], silent["method"], report["videos"]) == ("holitom", "uniform", CLIPS)
    assert telling["fixed"]["40"]["accuracy"] == 1 and telling["questions"] == CLIPS * EACH
    assert (telling["telling"]["10"], telling["telling"]["40"]) == (1, None)
    assert silent["telling"]["10"] == pytest.approx(0.5, abs=0.1)
    assert telling["cross_validated"]["tokens_prefilled"] < 32 < silent["cross_validated"]["tokens_prefilled"]
    found = read_auto(tmp_path, {(cell.method, cell.budget) for cell in CELLS})
    assert found == {"holitom": calibrate(answers(True), 1.0), "uniform": AutoEntry((40,), 0.0)}
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "auto.json"}


def test_the_table_of_one_method(dev_run, capsys):
    assert main([str(dev_run), "--method", "uniform", "--drop", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| 100 clips, 400 questions |")
    assert [line.split(" | ")[0] for line in lines[2:6]] == [f"| uniform, {name}" for name in (10, 35, 40, "auto")]
    assert "| 100.0 [100.0, 100.0] | 40 | 40 |  |" in lines[4] and lines[7].startswith("uniform: 10 and 40 tokens by")


def test_methods_are_listed_by_commas_too(dev_run, capsys):
    tables = []
    for words in (["uniform,holitom"], ["uniform", "--method", "holitom"]):
        assert main([str(dev_run), "--method", *words]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1] and "| holitom, auto |" in tables[0]


@pytest.mark.parametrize(
    ("arguments", "words", "named"),
    [
        (replace(ARGUMENTS, split="test"), [], "a run of the test split"),
        (ARGUMENTS, ["--method", "none"], "'none' was not measured at several budgets: one of: holitom, uniform"),
        (replace(ARGUMENTS, cells=CELLS[:2]), [], "evaluate one at several retention ratios"),
        (ARGUMENTS, ["--write", "{folder}/nowhere"], "holds no checkpoint"),
        (None, [], "holds no run"),
    ],
)
def test_what_cannot_be_calibrated_by_gets_one_clear_line(tmp_path, capsys, arguments, words, named):
    run = tmp_path / "run" if arguments is None else write_run(tmp_path / "run", arguments, clips=4)
    code = main([str(run), *(word.format(folder=tmp_path) for word in words)])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (1, "", 1) and named in err


@pytest.mark.parametrize("clips", [0, 1])
def test_two_clips_are_needed(tmp_path, capsys, clips):
    assert main([str(write_run(tmp_path, clips=clips))]) == 1
    assert f"holds {clips} measured clips, two are needed" in capsys.readouterr().err
