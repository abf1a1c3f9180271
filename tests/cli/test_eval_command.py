"""`edgevtc eval` as a user types it."""

import csv
import io
import json
from types import SimpleNamespace

import pytest

from edgevtc.cli.eval import BLIND_SCENES, command_line
from edgevtc.eval import report as report_module
from edgevtc.eval.journal import Cell, RunArguments


def test_a_run_and_its_report_again(edgevtc, tmp_path):
    out = tmp_path / "run"
    what = ["--method", "uniform", "--retention-ratio", "0.25", "--videos", 2, "--questions", 6, "--blind-scenes", 40]
    code, text, err = edgevtc("eval", *what, "--out", out, "--json")
    report = json.loads(text)
    assert (code, err, report["videos"]) == (0, "", 2)
    assert [cell["cell"]["method"] for cell in report["cells"]] == ["none", "uniform"]
    names = ("results.json", "results.csv", "results.md", "accuracy-retention.svg", "accuracy-ttft.svg")
    assert all((out / name).is_file() for name in names)

    command = "--videos 2 --questions 6 --blind-scenes {}\n```"
    assert command.format(40) in (out / "results.md").read_text()
    code, text, _ = edgevtc("eval", "--report", out, "--blind-scenes", 30, "--csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert code == 0 and [row["budget"] for row in rows] == ["576", "144"]
    assert command.format(30) in (out / "results.md").read_text()
    code, text, err = edgevtc("eval", "--report", out, "--videos", 3, "--bundle", "other")
    assert (code, text) == (1, "") and err.endswith("takes the run as it is: leave out --bundle, --videos\n")

    code, text, _ = edgevtc("eval", *what, "--out", out)  # all is measured already
    assert code == 0 and "uniform" in text and str(out / "results.md") in text
    assert "--method uniform --retention-ratio 0.25" in (out / "results.md").read_text()

    code, text, err = edgevtc("eval", *what, "--seed", 1, "--out", out)
    assert (code, text, err.count("\n")) == (1, "", 1) and "another seed (0, now 1)" in err


def test_a_report_of_no_run_is_refused(edgevtc, tmp_path):
    code, text, err = edgevtc("eval", "--report", tmp_path / "nothing")
    assert (code, text, err.count("\n")) == (1, "", 1) and "holds no run" in err


def test_the_command_has_what_the_run_had():
    cell = Cell("none", 100, 1.0, "original")
    made = RunArguments("0" * 64, "mine", 100, "cuda", "test", 3, 5, "world", (cell,), {}, "my bundle", 2)
    report = SimpleNamespace(arguments=made, videos=7, cells=[SimpleNamespace(cell=cell)])
    command = command_line(report, BLIND_SCENES)
    assert command.startswith("edgevtc eval --bundle 'my bundle' --method ")
    assert command.endswith("--split test --seed 3 --videos 7 --questions 5 --device cuda --jobs 2")
    assert BLIND_SCENES == report_module.BLIND_SCENES


WRONG_CALLS = [
    # arguments, exit code, what the one line names
    (["--method", "infomerg"], 1, "one of: none, uniform"),
    (["--method", "uniform,", "--retention-ratio", "0.3"], 1, "uniform at no retention ratio 0.3: one of: 0.25, 0.15"),
    (["--method", ""], 1, "names no method: one of: none, uniform"),
    (["--method", "uniform", "--retention-ratio", " ,"], 1, "names no share: one of: 0.25, 0.15"),
    (["--method", "none", "--retention-ratio", "0.15"], 1, "none at no retention ratio 0.15: one of: 1"),
    (["--clips", "/dev/null"], 1, "(not a directory): choose another --clips"),
    (["--retention-ratio", "much"], 1, "--retention-ratio takes numbers"),
    (["--retention-ratio", "1.5"], 1, "1.5 is not valid"),
    (["--split", "train"], 1, "one of: dev, test"),
    (["--seed", "-1"], 1, "seed -1 is outside the dev split"),
    (["--videos", "1"], 1, "needs 2 videos or more"),
    (["--questions", "0"], 1, "give 1 or more"),
    (["--jobs", "0"], 1, "0 jobs"),
    (["--blind-scenes", "0"], 1, "0 scenes"),
    (["--bundle", "nowhere"], 1, "edgevtc export"),
    (["--device", "abacus"], 1, "abacus"),
    (["--json", "--csv"], 2, "not allowed with"),
]


@pytest.mark.parametrize(("arguments", "code", "named"), WRONG_CALLS, ids=lambda value: str(value))
def test_a_wrong_call_gets_one_clear_line(edgevtc, tmp_path, arguments, code, named):
    out = tmp_path / "out"
    found, text, err = edgevtc("eval", "--out", out, *(argument.format(folder=tmp_path) for argument in arguments))
    assert (found, text) == (code, "")
    assert err.count("\n") == 1 and err.startswith("edgevtc") and named in err
    assert not list(tmp_path.glob("**/*.mp4")) and not (tmp_path / "nothing").exists()


def test_after_a_failed_start_the_folder_takes_another_run(edgevtc, tmp_path):
    what = ["--method", "none", "--videos", 2, "--questions", 1, "--blind-scenes", 40, "--out", tmp_path / "run"]
    assert edgevtc("eval", *what, "--device", "abacus")[0] == 1
    code, _, err = edgevtc("eval", *what)
    assert (code, err) == (0, "")
