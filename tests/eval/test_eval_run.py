"""Runs of eval: through the runner, resumable after any end, the same in any number of processes, and never mixed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jitter import JITTER

from edgevtc import Runner
from edgevtc.adaptive import by_budget
from edgevtc.bundle import AutoEntry, Bundle
from edgevtc.errors import ConfigError
from edgevtc.eval.clips import FORMS, Clips
from edgevtc.eval.examiner import select_cells
from edgevtc.eval.journal import Journal
from edgevtc.eval.report import make_report
from edgevtc.eval.run import Evaluation, evaluate
from edgevtc.video import probe

METHODS, RATIOS, VIDEOS = ["uniform", "holitom"], [0.15, 0.02], 3
EVALUATION = Evaluation(methods=METHODS, retention_ratios=RATIOS, videos=VIDEOS, questions=10, seed=5)
COMMAND = [
    *("eval", "--method", ",".join(METHODS), "--retention-ratio", "0.15,0.02"),
    *("--videos", str(VIDEOS), "--seed", "5"),
]
CELLS = ["none-b576", "uniform-b86", "uniform-b12", "holitom-b86", "holitom-b12"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run in one process."""
    folder = tmp_path_factory.mktemp("eval") / "run"
    evaluate(EVALUATION, folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def records(folder: Path) -> dict[int, dict]:
    lines = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["video"]: record for record in map(json.loads, lines)}


def file_of(folder: Path, video: int) -> Path:
    return EVALUATION.clips(folder).file(video)


def decided(folder: Path) -> list[dict]:
    """The records by video, without their times."""
    found = records(folder)
    for record in found.values():
        for cell in record["cells"].values():
            del cell["compress_s"], cell["prefill_s"], cell["ttft_s"]
        del record["render_s"], record["open_s"], record["seconds"]
    return [found[video] for video in sorted(found)]


def assert_alike(now: list[dict], before: list[dict]) -> None:
    """Equal but for answers whose margin is within the jitter."""
    for a, b in zip(now, before, strict=True):
        for name, cell in a["cells"].items():
            assert_same_answers(cell, b["cells"][name])
        assert {**a, "cells": list(a["cells"])} == {**b, "cells": list(b["cells"])}


def assert_same_answers(cell: dict, other: dict) -> None:
    """The same answers with about the same margins, wherever they are not a matter of the last digits."""
    firm = [min(pair) > JITTER for pair in zip(cell["margins"], other["margins"], strict=True)]
    assert any(firm)
    for key, near in (("answers", list), ("margins", lambda values: pytest.approx(values, abs=JITTER))):
        one, two = ([value for value, sure in zip(part[key], firm, strict=True) if sure] for part in (cell, other))
        assert one == near(two)


def test_a_record_holds_every_cell_and_what_ask_answers(finished):
    found = records(finished)
    assert sorted(found) == [0, 1, 2]
    for record in found.values():
        assert list(record["cells"]) == CELLS
        assert {len(cell["answers"]) for cell in record["cells"].values()} == {len(record["questions"])}
        assert len(record["foreign"]) == len(record["foreign_answers"]) > 0
        for cell in record["cells"].values():
            assert 0 < cell["compress_s"] + cell["prefill_s"] + record["open_s"] <= cell["ttft_s"] < record["seconds"]
    for method, ratio, name in (("none", 1.0, "none-b576"), ("holitom", 0.02, "holitom-b12")):
        video = Runner(method=method, retention_ratio=ratio, threads=1).open(file_of(finished, 1))
        answers = [video.ask(question["text"]) for question in found[1]["questions"]]
        said = {"answers": [a.answer for a in answers], "margins": [a.answer_margin for a in answers]}
        assert_same_answers(said, found[1]["cells"][name])


def test_auto_of_the_records_is_auto_of_the_runner(finished):
    margins = [margin for record in records(finished).values() for margin in record["cells"]["holitom-b12"]["margins"]]
    # Few questions are firm about both budgets at one threshold: a low one and a high one have some of each.
    firm = [budget for share in (0.2, 0.8) for budget in firm_by_both(finished, float(np.quantile(margins, share)))]
    assert set(firm) == {12, 86}


def firm_by_both(finished: Path, least: float) -> list[int]:
    """Budgets that runner and records chose by a threshold, of the questions whose margins leave no doubt."""
    with Journal(finished) as journal:
        journal.arguments = replace(journal.arguments, auto={"holitom": AutoEntry((12, 86), least)})
    (auto,) = make_report(journal, blind_scenes=100).auto
    runner = Runner(method="holitom", budget="auto", margin=least, threads=1)
    entries = tuple(entry for entry in by_budget(runner.bundle.manifest, "holitom") if entry.budget in (12, 86))
    right, kept, firm = [], [], []
    for video, record in journal.records.items():
        session = runner.open(file_of(finished, video))
        session.methods = entries
        few, many = record.cells["holitom-b12"], record.cells["holitom-b86"]
        for index, question in enumerate(record.questions):
            enough = few.margins[index] >= least
            budget, chosen = (12, few) if enough else (86, many)
            right.append(chosen.answers[index] == question.answer)
            kept.append(budget)
            if abs(few.margins[index] - least) > JITTER and chosen.margins[index] > JITTER:
                answer = session.ask(question.text)
                assert (answer.budget, answer.answer) == (budget, chosen.answers[index])
                firm.append(budget)
    assert auto.accuracy.accuracy == pytest.approx(sum(right) / len(right))
    assert auto.tokens_kept == pytest.approx(sum(kept) / len(kept))
    assert 12 < auto.tokens_kept < 86
    return firm


def test_clips_are_files_of_several_forms(finished):
    infos = [probe(path) for path in map(file_of, [finished] * VIDEOS, range(VIDEOS))]
    wanted = [round(form.fps * form.seconds) for form in FORMS[:VIDEOS]]
    assert [info.num_frames for info in infos] == wanted
    assert len({form.length for form in FORMS}) == 3 and max(form.seconds for form in FORMS) >= 60


def test_a_clip_is_the_same_whatever_was_asked_for_before(tmp_path):
    one, other = (Clips("dev", 5, 4, tmp_path) for _ in range(2))
    later = one.sample(4)
    assert [other.sample(index) for index in range(5)][4].scene == later.scene
    assert one.questions(0) == other.questions(0) and len(one.questions(0)) == 4
    assert Clips("dev", 5, 9, tmp_path).questions(4)[:4] == later.questions
    assert one.file(0) == other.file(0) != Clips("dev", 6, 4, tmp_path).file(0)
    assert one.digest() == other.digest() != Clips("dev", 6, 4, tmp_path).digest()


def test_controls_know_less_than_all_tokens(folder):
    with Journal(folder) as journal:
        report = make_report(journal, blind_scenes=100)
    full = report.cells[0].accuracy
    assert full.low > report.blind.accuracy and full.low > report.shuffled_video.accuracy
    assert full.questions == sum(len(record.questions) for record in journal.records.values())


def test_a_line_that_a_killed_process_left_is_made_again(folder):
    path, before = folder / "records.jsonl", decided(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][: len(lines[1]) // 2])
    written = {file: file.stat().st_mtime_ns for file in (folder / "videos").rglob("*.mp4")}
    steps = []
    evaluate(EVALUATION, folder, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert path.read_bytes().startswith(lines[0])
    assert_alike(decided(folder), before)
    assert written == {file: file.stat().st_mtime_ns for file in (folder / "videos").rglob("*.mp4")}


def test_a_run_killed_in_two_processes_goes_on_in_one_and_ends_the_same(folder):
    before = decided(folder)
    (folder / "records.jsonl").unlink()
    command = [sys.executable, "-m", "edgevtc", *COMMAND, "--jobs", "2", "--out", str(folder)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        until(lambda: (folder / "records.jsonl").exists() and b"\n" in (folder / "records.jsonl").read_bytes())
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        until(lambda: not group_members(process.pid))  # no worker outlives its parent
    finally:
        if group_members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert 1 <= len(records_whole(folder)) <= VIDEOS
    evaluate(EVALUATION, folder)
    assert_alike(decided(folder), before)


def records_whole(folder: Path) -> list[bytes]:
    lines = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    return [line for line in lines if line.endswith(b"\n")]


def until(condition, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.05)


def group_members(group: int) -> list[int]:
    """Running processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


OTHER_RUNS = [
    # what differs, what the one line names
    ({"bundle_sha256": "0" * 64}, "another bundle"),
    ({"split": "test"}, "another split (dev, now test)"),
    ({"seed": 6}, "another seed (5, now 6)"),
    ({"questions": 4}, "another number of questions (10, now 4)"),
    ({"world": "0" * 64}, "another version of the world"),
    ({"cells": ()}, "another choice of methods and retention ratios"),
]


@pytest.mark.parametrize(("changes", "named"), OTHER_RUNS, ids=[next(iter(row[0])) for row in OTHER_RUNS])
def test_another_run_does_not_share_a_folder(folder, changes, named):
    before = (folder / "records.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="another --out") as caught:
        Journal(folder, replace(EVALUATION.arguments(folder), **changes))
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert (folder / "records.jsonl").read_bytes() == before


def test_a_run_that_measured_nothing_claims_no_folder(tmp_path):
    wanted = EVALUATION.arguments(tmp_path)
    Journal(tmp_path, replace(wanted, device="cuda")).close()
    with Journal(tmp_path, wanted) as journal:
        assert (journal.arguments.device, journal.records) == ("cpu", {})
    with Journal(tmp_path) as journal:
        assert journal.arguments == wanted


@pytest.mark.parametrize("problem", ["a file", "read-only"])
def test_clips_that_cannot_be_written_are_refused_before_the_first(tmp_path, monkeypatch, problem):
    place, begun = tmp_path / "clips", []
    if problem == "a file":
        place.write_text("")
    else:

        def refused(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", refused)  # who runs tests as root may write everywhere
    monkeypatch.setattr(Evaluation, "examiner", lambda *_: begun.append(1))
    with pytest.raises(ConfigError, match=r"cannot be used .*: choose another --clips") as caught:
        evaluate(replace(EVALUATION, clips_folder=place), tmp_path / "run")
    assert "\n" not in str(caught.value) and not begun


def test_a_clip_that_cannot_be_written_is_told_in_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(ConfigError, match=r"cannot be used \(no space left on device\): choose another --clips"):
        Clips("dev", 5, 4, tmp_path).file(0)
    assert not list(tmp_path.rglob("*.mp4"))


def test_clips_that_are_all_there_need_no_folder_to_write_to(finished, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    EVALUATION.clips(finished).check(range(VIDEOS))


def test_another_way_of_auto_goes_on_in_the_same_folder(folder):
    other = replace(EVALUATION.arguments(folder), auto={"uniform": AutoEntry((12, 86), 0.5)})
    with Journal(folder, other) as journal:
        assert len(journal.records) == VIDEOS
    with Journal(folder) as journal:
        assert journal.arguments == other


def test_two_processes_do_not_share_a_folder(folder):
    with Journal(folder), pytest.raises(ConfigError, match="another process"):
        Journal(folder)
    Journal(folder).close()


def test_an_altered_record_is_refused_by_its_line(folder):
    path = folder / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(ConfigError, match=r"line 2.*missing"):
        Journal(folder)
    path.write_bytes(lines[0] + b"nonsense\n")
    with pytest.raises(ConfigError, match=r"line 2.*not JSON"):
        Journal(folder)


def test_cells_of_a_bundle():
    manifest = Bundle().manifest
    assert [f"{cell.name}-b{cell.budget}" for cell in select_cells(manifest, METHODS, RATIOS)] == CELLS
    everything = select_cells(manifest, None, None)
    assert everything == sorted(manifest.methods, key=manifest.methods.index) and everything[0].name == "none"
    assert select_cells(manifest, ["none"], [1.0]) == select_cells(manifest, ["none"], None) == everything[:1]
    assert [cell.name for cell in select_cells(manifest, ["none", "uniform"], [0.15])] == ["none", "uniform"]
    without = replace(manifest, methods=tuple(entry for entry in manifest.methods if entry.name != "none"))
    with pytest.raises(ConfigError, match="lacks none"):
        select_cells(without, None, None)
