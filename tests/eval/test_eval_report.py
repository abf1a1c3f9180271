"""Numbers and pages of a run, on records whose results are known."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from edgevtc.bundle import AutoEntry
from edgevtc.errors import ConfigError
from edgevtc.eval.examiner import Asked, CellRecord, ClipRecord
from edgevtc.eval.intervals import Estimate, Sheet
from edgevtc.eval.journal import Cell, RunArguments
from edgevtc.eval.pages import csv_text, json_value, markdown, points, rounded, write_report
from edgevtc.eval.plots import FIGURES
from edgevtc.eval.report import Report, make_report
from edgevtc.eval.svg import spread
from edgevtc.eval.world_scores import Result, score
from edgevtc.methods import method_names

QUESTIONS = (Asked("color", "what color is the circle", "red"), Asked("count", "how many objects are there", "two"))
AUTO = {"holitom": AutoEntry((2, 10), 0.2), "random": AutoEntry((2, 5, 10), 0.2)}
NAMES = sorted({*method_names(), "<script>&"} - {"none"})


def cells_of(names: list[str], ratios: tuple[float, ...] = (0.1, 0.02)) -> tuple[Cell, ...]:
    full = Cell("none", 100, 1.0, "original")
    return (full, *(Cell(name, round(100 * ratio), ratio, "original") for name in names for ratio in ratios))


def journal_of(folder: Path, cells: tuple[Cell, ...], right: dict[str, list[str]], videos: int) -> SimpleNamespace:
    """A run; `right` has for a cell one string a video, of 1 and 0 for its questions. Others are all wrong."""

    def clip(video: int) -> ClipRecord:
        found = {}
        for place, cell in enumerate(cells):
            marks = right.get(cell.name, ["00"] * videos)[video]
            answers = tuple(q.answer if mark == "1" else "no" for q, mark in zip(QUESTIONS, marks, strict=True))
            margins = tuple(0.3 if mark == "1" else 0.1 for mark in marks)
            found[cell.name] = CellRecord(
                answers, margins, 0.001 * place, 0.01 * (video + 1), 0.2 + 0.0005 * cell.budget
            )
        slices = {"camera": "static" if video % 2 else "panned", "noise": "0.5", "length": "20 s", "things": "1"}
        return ClipRecord(video, slices, QUESTIONS, QUESTIONS, ("red", "six"), 1.0, 0.1, 2.0, found)

    answers = {QUESTIONS[0].text: "red", QUESTIONS[1].text: ""}
    (folder / "blind.json").write_text(json.dumps({"scenes": 50, "answers": answers}))
    arguments = RunArguments(
        "ab" * 32,
        "a model",
        100,
        "cpu",
        "dev",
        3,
        2,
        "cd" * 32,
        cells,
        {"holitom": AutoEntry((2, 10), 0.2), "random": AutoEntry((2, 5, 10), 0.2)},
    )
    return SimpleNamespace(folder=folder, arguments=arguments, records={video: clip(video) for video in range(videos)})


def report_of(folder: Path, right: dict[str, list[str]], names: list[str], videos: int = 4) -> Report:
    return make_report(journal_of(folder, cells_of(names), right, videos), blind_scenes=50)  # type: ignore[arg-type]


def test_intervals_are_those_of_drawing_whole_videos():
    rng = np.random.default_rng(1)
    asked = rng.integers(0, 6, 30)
    right = np.stack([rng.binomial(asked, share) for share in (0.3, 0.8)], 1)
    sheet = Sheet(right, asked)
    drawn = np.random.default_rng(0).integers(0, np.count_nonzero(asked), (1000, np.count_nonzero(asked)))
    for cell, hits in enumerate(right[asked > 0].T):
        shares = [hits[videos].sum() / asked[asked > 0][videos].sum() for videos in drawn]
        accuracy, low, high, questions = astuple(sheet.score(cell))
        assert (accuracy, questions) == (hits.sum() / asked.sum(), asked.sum())
        assert (low, high) == tuple(np.quantile(shares, (0.025, 0.975)))
        results = [
            Result(7 * video, k < right[video, cell], {}) for video in range(30)[::-1] for k in range(asked[video])
        ]
        assert score(results) == sheet.score(cell)


def test_differences_are_paired():
    asked = np.full(40, 2)
    hard = np.tile([0, 2], 20)  # a video is all wrong or all right, for both methods
    sheet = Sheet(np.stack([hard, hard, np.where(np.arange(40) < 4, 0, hard)], 1), asked)
    assert sheet.difference(0, 1) == Estimate(0.0, 0.0, 0.0)
    apart = sheet.difference(0, 2)
    assert apart.value == pytest.approx(2 / 40)
    assert apart.high - apart.low < (sheet.score(0).high - sheet.score(0).low) / 2


def test_shares_of_the_whole_and_of_the_gap():
    asked = np.full(50, 10)
    column = [np.full(50, number) for number in (8, 6, 4, 8)]
    sheet = Sheet(np.stack(column, 1), asked)
    assert astuple(sheet.share(1, 0)) == pytest.approx((0.75, 0.75, 0.75))
    assert astuple(sheet.share(1, 0, floor=2)) == pytest.approx((0.5, 0.5, 0.5))
    assert sheet.share(1, 0, floor=3) is None  # there is no gap
    noisy = Sheet(np.stack([np.tile([9, 1], 25), column[1], np.tile([1, 8], 25)], 1), asked)
    assert noisy.share(1, 0, floor=2) is None  # nor one beyond the interval


def test_a_sheet_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one question"):
        Sheet(np.zeros((3, 1)), np.zeros(3))


def test_known_records_give_known_numbers(tmp_path):
    right = {"none-b100": ["11"] * 4, "random-b10": ["10"] * 4, "holitom-b10": ["11", "11", "10", "10"]}
    report = report_of(tmp_path, right, ["random", "holitom"])
    by_name = {result.cell.name: result for result in report.cells}
    assert by_name["holitom-b10"].accuracy.accuracy == 0.75
    assert by_name["holitom-b10"].of_full.value == 0.75
    assert by_name["holitom-b10"].gap_recovered.value == 0.5
    assert by_name["random-b10"].gap_recovered.value == 0.0
    assert by_name["none-b100"].gap_recovered is None
    assert by_name["holitom-b10"].prefill_s == pytest.approx(0.025)
    assert (report.blind.accuracy, report.shuffled_video.accuracy) == (0.5, 0.5)
    (difference,) = [entry for entry in report.differences if entry.budget == 10]
    assert (difference.method, difference.other, difference.accuracy.value) == ("random", "holitom", -0.25)
    assert list(report.types) == ["color", "count"]
    assert report.types["count"].cells["random-b10"].accuracy == 0
    assert (report.types["color"].blind.accuracy, report.types["count"].shuffled_video.accuracy) == (1, 0)
    assert {name: list(values) for name, values in report.slices.items()} == {
        "camera": ["panned", "static"],
        "noise": ["0.5"],
        "length": ["20 s"],
        "things": ["1"],
    }
    assert report.slices["camera"]["panned"].questions == 4


def test_auto_takes_the_first_budget_that_is_sure(tmp_path):
    # 2 tokens: one of eight sure and right; 10 tokens: three of the others right; what auto asks last is its answer.
    right = {"none-b100": ["11"] * 4, "holitom-b2": ["10", "00", "00", "00"], "holitom-b10": ["01", "11", "00", "00"]}
    (auto,) = report_of(tmp_path, right, ["holitom", "random"]).auto  # not all of random's budgets were measured
    assert (auto.method, auto.margin, auto.accuracy.accuracy) == ("holitom", 0.2, 4 / 8)
    assert auto.tokens_kept == pytest.approx((2 + 7 * 10) / 8)
    assert auto.tokens_prefilled == pytest.approx((2 + 7 * 12) / 8)
    assert (auto.fixed_budget, auto.minus_fixed.value) == (10, 1 / 8)


def test_a_report_needs_two_clips_and_takes_the_first_ones(tmp_path):
    journal = journal_of(tmp_path, cells_of([]), {"none-b100": ["11", "11", "00"]}, 3)
    assert make_report(journal, videos=2, blind_scenes=50).cells[0].accuracy.accuracy == 1
    with pytest.raises(ConfigError, match="holds 1 measured clips"):
        make_report(journal, videos=1, blind_scenes=50)


def test_the_blind_control_is_learned_once(tmp_path):
    journal = journal_of(tmp_path, cells_of([]), {}, 2)
    make_report(journal, blind_scenes=60)
    kept = json.loads((tmp_path / "blind.json").read_text())
    assert kept["scenes"] == 60 and kept["answers"][QUESTIONS[1].text] in ("one", "two", "three", "four", "five", "six")
    kept["answers"][QUESTIONS[1].text] = "two"
    (tmp_path / "blind.json").write_text(json.dumps(kept))
    assert make_report(journal, blind_scenes=60).types["count"].blind.accuracy == 1


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Every method there is, and one with a hostile name, at two budgets, with results drawn by chance."""
    rng, cells = np.random.default_rng(0), cells_of(NAMES)
    right = {
        cell.name: ["".join(rng.choice(["0", "1"], 2, p=[1 - p, p])) for _ in range(30)]
        for cell, p in zip(cells, [0.95, *rng.uniform(0.1, 0.9, len(cells) - 1)], strict=True)
    }
    return report_of(tmp_path_factory.mktemp("report"), right, NAMES, videos=30)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_well_formed_and_names_every_method(everything, name):
    text = FIGURES[name](everything)
    root = ElementTree.fromstring(text)
    shown = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert set(NAMES) <= shown
    assert not re.search(r"nan|inf[^o]|<script", text)
    assert "prefers-color-scheme:dark" in text and "max-width" in text
    width, height = (float(root.get(side)) for side in ("width", "height"))
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(element.get("x")) <= width and 0 <= float(element.get("y")) <= height
    for element in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for pair in element.get("points").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width and 0 <= y <= height


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_the_full_tokens_alone(tmp_path, name):
    report = report_of(tmp_path, {"none-b100": ["11", "10"]}, [], videos=2)
    ElementTree.fromstring(FIGURES[name](report))
    page = markdown(report, "edgevtc eval")
    assert "With all tokens **75.0 %" in page and "| `" not in page
    assert csv_text(report).count("\n") == 2


def narrow_texts(figure: str) -> list[str]:
    """What a narrow page shows and a wide one does not."""
    texts = ElementTree.fromstring(figure).iter("{http://www.w3.org/2000/svg}text")
    return [text.text or "" for text in texts if "narrow" in text.get("class", "").split()]


def test_narrow_figures_say_what_their_axes_say(everything):
    assert any("(faster to the right)" in text for text in narrow_texts(FIGURES["accuracy-ttft.svg"](everything)))
    numbers = narrow_texts(FIGURES["accuracy-methods.svg"](everything))
    assert len(numbers) == 4 * len(NAMES) and numbers[:4] == ["100", "0", "100", "2"]


def test_zero_has_no_sign():
    assert points(Estimate(-0.0, -0.25, 0.25)) == "0.0 [-25.0, +25.0]"
    assert points(Estimate(-0.0004, -0.0004, -0.0004)) == "**0.0** [0.0, 0.0]"
    assert points(Estimate(0.021, 0.01, 0.03)) == "**+2.1** [+1.0, +3.0]"
    assert str(rounded(-0.0)) == str(rounded(-1e-9)) == "0.0"


def test_labels_are_spread():
    places = spread([50, 50, 51, 200, 5], 16, 10, 210)
    ordered = sorted(places)
    assert all(after - before >= 16 - 1e-9 for before, after in pairwise(ordered))
    assert min(places) >= 10 and max(places) <= 210
    assert places[3] == 200 and places[0] < places[1] < places[2]
    assert spread([30.0], 16, 0, 100) == [30.0]


def test_files_agree_with_the_numbers(everything, tmp_path):
    files = write_report(everything, tmp_path, "edgevtc eval --videos 30")
    assert {file.name for file in files} == {"results.json", "results.csv", "results.md", *FIGURES}
    assert all(file.stat().st_size for file in files) and not list(tmp_path.glob(".*"))
    value = json.loads((tmp_path / "results.json").read_text())
    assert value == json.loads(json.dumps(json_value(everything)))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert [row["method"] for row in rows] == [cell["cell"]["method"] for cell in value["cells"]]
    for row, cell in zip(rows, value["cells"], strict=True):
        assert float(row["accuracy"]) == pytest.approx(cell["accuracy"]["accuracy"], abs=1e-6)
        if row["method"] not in ("none", "uniform"):
            (other,) = [r for r in rows if (r["method"], r["budget"]) == ("uniform", row["budget"])]
            apart = float(row["accuracy"]) - float(other["accuracy"])
            assert float(row["minus_uniform"]) == pytest.approx(apart, abs=2e-6)
            assert float(row["minus_uniform_low"]) <= apart + 2e-6
            assert float(row["minus_uniform_high"]) >= apart - 2e-6
    page = (tmp_path / "results.md").read_text()
    assert "$ edgevtc eval --videos 30" in page and all(f"`{name}`" in page for name in NAMES)
    assert all(f"]({name})" in page for name in FIGURES)
    for rows in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.count("|") for line in rows.splitlines()}) == 1
