"""`edgevtc view` as a user types it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

CLIP = "corridor.mp4"


def test_two_methods_on_one_page(edgevtc, samples, tmp_path):
    path = tmp_path / "out.html"
    two = ["--method", "infomerge", "--method", "holitom", "--retention-ratio", 0.15]
    code, out, err = edgevtc("view", samples / CLIP, *two, "-o", path, "--json")
    report = json.loads(out)
    assert (code, err, report["path"]) == (0, "", str(path))
    assert [entry["method"] for entry in report["methods"]] == ["infomerge", "holitom"]
    for entry in report["methods"]:
        assert entry["answer"] is entry["finish_reason"] is None
        assert entry["segments"] is None or sum(entry["segment_budgets"]) == entry["tokens_kept"]
    text = path.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    for panel, entry in zip(data["panels"], report["methods"], strict=True):
        slots = [slot for frame in panel["assignment"] for slot in frame]
        assert (len(slots), len(panel["positions"])) == (entry["tokens_total"], entry["tokens_kept"]) == (576, 86)
        assert [slots.count(slot) for slot in range(86)] == panel["counts"]
        assert slots.count(-1) == entry["tokens_dropped"]
    assert report["bundle_sha256"] in text


def test_a_sheet_with_the_answer_that_ask_gives(edgevtc, samples, sample_questions, tmp_path):
    question, path = sample_questions[0]["questions"][0], tmp_path / "out.png"
    code, out, _ = edgevtc("view", samples / CLIP, "--question", question["question"], "-o", path, "--json")
    report = json.loads(out)
    assert code == 0 and report["warnings"] == []
    assert [report["methods"][0][key] for key in ("answer", "finish_reason")] == [question["answer"], "stop"]
    assert Image.open(path).width == 1200


def test_that_the_model_was_not_asked_is_in_the_report(edgevtc, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    asked = ["--question", "what color is the circle", "-o", tmp_path / "out.png", "--json"]
    code, out, err = edgevtc("view", tmp_path / "noise.png", *asked)
    report = json.loads(out)
    assert [report["methods"][0][key] for key in ("answer", "finish_reason")] == ["cannot tell", "foreign"]
    assert code == 0 and any("so it was not asked" in warning and warning in err for warning in report["warnings"])


def test_without_a_method_the_first_that_drops_tokens_is_drawn(edgevtc, samples, tmp_path):
    code, out, _ = edgevtc("view", samples / CLIP, "-o", tmp_path / "out.png", "--json")
    (drawn,) = json.loads(out)["methods"]
    assert (code, drawn["method"]) == (0, "uniform") and 0 < drawn["tokens_kept"] < drawn["tokens_total"]


def test_an_existing_file_stays_unless_told(edgevtc, samples, tmp_path):
    path = tmp_path / "out.PNG"
    path.write_text("mine")
    code, out, err = edgevtc("view", samples / CLIP, "-o", path)
    assert (code, out, err.count("\n"), path.read_text()) == (1, "", 1, "mine")
    assert edgevtc("view", samples / CLIP, "-o", path, "--overwrite") == (0, f"{path}\n", "")
    assert Image.open(path).format == "PNG"


WRONG_CALLS = [
    # arguments after the clip, exit code, what the one line names
    (["-o", "{folder}/out.jpg"], 1, "one of: .html, .png"),
    (["-o", "{folder}/out"], 1, "one of: .html, .png"),
    (["-o", "{folder}/no/out.png"], 1, "no folder"),
    (["-o", "{folder}/out.html", "--method", "infomerg"], 1, "one of: none"),
    (["-o", "{folder}/out.html", "--method", "uniform", "--budget", "7"], 1, "keeps no 7 of 576"),
    (["-o", "{folder}/out.html", *["--method", "none"] * 3], 1, "once or twice"),
    (["-o", "{folder}/out.html", *["--method", "uniform"] * 2], 1, "give two methods, or one"),
    (["-o", "{folder}/out.html", "--question", " "], 1, "question is empty"),
    (["-o", "{folder}/out.html", "--bundle", "nowhere"], 1, "edgevtc export"),
    (["-o", "{folder}/out.html", "--budget", "58", "--retention-ratio", "0.1"], 2, "not allowed with"),
    ([], 2, "--output"),
]


@pytest.mark.parametrize(("arguments", "code", "named"), WRONG_CALLS, ids=lambda value: str(value))
def test_a_wrong_call_gets_one_clear_line(edgevtc, samples, tmp_path, arguments, code, named):
    found, out, err = edgevtc("view", samples / CLIP, *(argument.format(folder=tmp_path) for argument in arguments))
    assert (found, out) == (code, "")
    assert err.count("\n") == 1 and err.startswith("edgevtc") and named in err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_video_is_named(edgevtc, tmp_path):
    code, _, err = edgevtc("view", "missing.mp4", "-o", tmp_path / "out.png")
    assert (code, err.count("\n")) == (1, 1) and "missing.mp4" in err
