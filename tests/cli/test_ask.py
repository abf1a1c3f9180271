"""`edgevtc ask` and `edgevtc export` as a user types them: results, reports, and one line for every wrong call."""

import json
import subprocess
import sys

import pytest

from edgevtc.adaptive import DEFAULT_MARGIN
from edgevtc.bundle import Bundle, embedded_path

CLIP = "corridor.mp4"


@pytest.fixture
def item(sample_questions):
    return sample_questions[0]["questions"][0]


def test_the_answer_is_all_of_stdout(edgevtc, samples, item):
    code, out, err = edgevtc("ask", samples / CLIP, item["question"])
    assert (code, out) == (0, item["answer"] + "\n")
    assert "kept 576 of 576 visual tokens" in err and "first token after" in err


def test_quiet_leaves_stderr_empty(edgevtc, samples, item):
    assert edgevtc("ask", samples / CLIP, item["question"], "-q") == (0, item["answer"] + "\n", "")


def test_json_has_the_documented_keys(edgevtc, samples, item):
    code, out, _ = edgevtc(
        "ask", samples / CLIP, item["question"], "--json", "--retention-ratio", 0.1, "--method", "uniform"
    )
    answer = json.loads(out)
    assert code == 0
    assert (answer["tokens_kept"], answer["tokens_total"], answer["method"]) == (58, 576, "uniform")
    times = {"frames_s", "encode_s", "compress_s", "prefill_s", "generate_s", "ttft_s", "load_s", "tokens_per_s"}
    assert all(isinstance(answer[key], float) for key in times)
    assert {"answer", "question", "finish_reason", "unknown_words", "positions_sha256", "bundle_sha256"} <= set(answer)
    receipt = {"budget": 58, "budgets_tried": [58], "segments": None, "device": "cpu", "max_tokens": 4}
    assert {key: answer[key] for key in receipt} == receipt
    assert answer["sampling"] == {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    assert answer["answer_margin"] > 0 and len(answer["times_s"]) == 16 and len(answer["frames_sha256"]) == 64


def test_a_budget_of_auto_says_what_it_tried(edgevtc, samples, item):
    ask = ["ask", samples / CLIP, item["question"], "--method", "uniform", "--budget", "auto"]
    code, out, err = edgevtc(*ask, "--margin", 0)
    assert code == 0 and "kept 29 of 576" in err and "tried 29: margin" in err and "calibration" not in err
    assert edgevtc(*ask)[2].count("warning: this bundle has no calibration of auto for uniform") == 1
    assert "calibration" not in edgevtc(*ask, "--margin", DEFAULT_MARGIN)[2]
    assert "calibration" not in edgevtc(*ask[:-3], "infomerge", "--budget", "auto")[2]
    code, out, _ = edgevtc(*ask, "--margin", 9, "--json")
    answer = json.loads(out)
    assert (code, answer["budgets_tried"], answer["margin"]) == (0, [29, 58, 86, 144], 9)


def test_where_auto_has_no_choice_it_says_so(edgevtc, samples, item):
    ask = ["ask", samples / CLIP, item["question"], "--budget", "auto"]
    manifest = Bundle(embedded_path()).manifest
    lone = next(name for name, entry in manifest.auto.items() if len(entry.budgets) == 1)
    several = next(name for name, entry in manifest.auto.items() if len(entry.budgets) > 1)
    note = f"note: auto answers at 144 tokens of {lone}, whatever the margin"
    assert note in " ".join(edgevtc(*ask, "--method", lone)[2].split())
    assert "note:" not in edgevtc(*ask, "--method", several)[2]
    told = " ".join(edgevtc(*ask, "--method", lone, "--margin", 0.9)[2].split())
    assert note in told and "tried 144: margin" in told and "asked for" not in told
    for method in (lone, several):
        code, out, err = edgevtc(*ask, "--method", method, "--temperature", 0.5)
        assert (code, out) == (1, "") and "auto needs greedy answers" in err
    for choice in (["--budget", "auto"], ["--ttft", 5]):
        code, out, err = edgevtc(*ask[:-2], *choice)
        assert (code, out) == (1, "")
        assert "of none this bundle holds 576 tokens alone" in err and f", {several}" in err


def test_a_time_to_first_token_chooses_the_budget(edgevtc, samples, item, tmp_path):
    ask = ["ask", samples / CLIP, item["question"], "--method", "uniform", "--cache-dir", tmp_path, "--json"]
    code, out, _ = edgevtc(*ask, "--ttft", 600)
    answer = json.loads(out)
    assert (code, answer["budget"], answer["ttft_limit_s"]) == (0, 144, 600)
    code, out, err = edgevtc(*ask, "--ttft", 0.0001)
    assert (code, out, err.count("\n")) == (1, "", 1) and "uniform takes at least" in err


def test_several_questions_are_answered_in_order(edgevtc, samples, sample_questions):
    items = sample_questions[0]["questions"]
    code, out, _ = edgevtc("ask", samples / CLIP, *(item["question"] for item in items))
    assert (code, out.splitlines()) == (0, [item["answer"] for item in items])


def test_questions_come_from_standard_input(edgevtc, samples, sample_questions):
    items = sample_questions[0]["questions"][:3]
    lines = "\n\n".join(item["question"] for item in items) + "\n"
    code, out, _ = edgevtc("ask", samples / CLIP, "-q", stdin=lines)
    assert (code, out.splitlines()) == (0, [item["answer"] for item in items])


def test_unknown_words_come_with_what_can_be_asked(edgevtc, samples):
    code, out, err = edgevtc("ask", samples / CLIP, "what color is the Elephant?")
    assert code == 0 and out.strip()
    assert "does not know: Elephant" in err and "what color is the circle" in err


def test_the_installed_command_answers(samples, item):
    command = [sys.executable, "-m", "edgevtc", "ask", str(samples / CLIP), item["question"], "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, item["answer"] + "\n", "")


WRONG_CALLS = [
    # arguments, exit code, what the one line names
    (["ask", "missing.mp4", "x"], 1, "missing.mp4"),
    (["ask", "{folder}", "x"], 1, "{folder}"),
    (["ask", "{text}", "x"], 1, "notes.txt"),
    (["ask", "{empty}", "x"], 1, "empty.mp4"),
    (["ask", "{clip}", "  "], 1, "question is empty"),
    (["ask", "{clip}", "x", "--method", "infomerg"], 1, "one of: none"),
    (["ask", "{clip}", "x", "--budget", "7"], 1, "keeps no 7 of 576"),
    (["ask", "{clip}", "x", "--retention-ratio", "1.5"], 1, "above 0 and up to 1"),
    (["ask", "{clip}", "x", "--device", "tpu"], 1, "one of: cpu, cuda"),
    (["ask", "{clip}", "x", "--device", "cuda"], 1, "edgevtc[gpu]"),
    (["ask", "{clip}", "x", "--bundle", "nowhere"], 1, "edgevtc export"),
    (["ask", "{clip}", "x", "--temperature", "-1"], 1, "temperature"),
    (["ask", "{clip}", "x", "--top-p", "0"], 1, "top-p"),
    (["ask", "{clip}", "x", "--max-tokens", "0"], 1, "0 tokens"),
    (["ask", "{clip}", "x", "--threads", "0"], 1, "0 threads"),
    (["ask", "{clip}", "x", "--start", "1000"], 1, "1000"),
    (["ask", "{clip}", "x", "--start", "3", "--end", "2"], 1, "2"),
    (["ask", "{clip}", "x", "--fps", "0"], 1, "fps"),
    (["ask", "{clip}", "x", "--weight-format", "int2"], 1, "one of: w8a8"),
    (["ask", "{clip}", "x", "--budget", "58", "--retention-ratio", "0.1"], 2, "not allowed with"),
    (["ask", "{clip}", "x", "--budget", "many"], 2, "--budget"),
    (["ask", "{clip}", "x", "--budget", "auto", "--ttft", "1"], 2, "not allowed with"),
    (["ask", "{clip}", "x", "--margin", "0.1"], 1, "--budget auto"),
    (["ask", "{clip}", "x", "--ttft", "-1"], 1, "above 0"),
    (["ask"], 2, "video"),
    (["ask", "{clip}", "x", "--nonsense"], 2, "--nonsense"),
    (["answer"], 2, "ask"),
    ([], 2, "COMMAND"),
    (["export", "embedded"], 2, "--output"),
    (["export", "embedded", "-o", "{folder}/x", "--set", "tau"], 2, "METHOD.NAME=VALUE"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "named"), WRONG_CALLS, ids=lambda value: " ".join(value) if isinstance(value, list) else None
)
def test_a_wrong_call_gets_one_clear_line(edgevtc, samples, tmp_path, arguments, code, named):
    (tmp_path / "notes.txt").write_text("no video\n")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    places = {
        "clip": samples / CLIP,
        "folder": tmp_path / "folder",
        "text": tmp_path / "notes.txt",
        "empty": tmp_path / "empty.mp4",
    }
    found, out, err = edgevtc(*(argument.format(**places) for argument in arguments))
    assert found == code
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("edgevtc") and "Traceback" not in err
    assert named.format(**places) in err
