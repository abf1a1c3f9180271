"""A budget chosen by each question's answer, or by a time to first token."""

import json
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from jitter import JITTER, ONE_KERNEL
from tiny_bundle import write_tiny_bundle

from edgevtc import Runner
from edgevtc.adaptive import DEFAULT_MARGIN, by_budget, margin_threshold, rungs
from edgevtc.bundle import AutoEntry, Manifest
from edgevtc.decoder.sampling import SamplingConfig
from edgevtc.errors import BundleError, ConfigError
from edgevtc.latency import Latency

CLIP, QUESTION = "corridor.mp4", "what shape is the blue object"
#: All budgets of the method; auto leaves out the one of fewer tokens than frames.
METHOD, BUDGETS, LADDER = "uniform", [12, 29, 58, 86, 144], [29, 58, 86, 144]


@pytest.fixture(scope="module")
def runner():
    return Runner(method=METHOD, budget="auto")


@pytest.fixture
def video(runner, samples):
    return runner.open(samples / CLIP)


@pytest.fixture(scope="module")
def fixed(samples):
    """Budget → the answer a runner of that budget gives."""
    runner = Runner(method=METHOD)
    found = {}
    for entry in by_budget(runner.bundle.manifest, METHOD):
        runner.method = entry
        found[entry.budget] = runner.open(samples / CLIP).ask(QUESTION)
    return found


def test_the_first_budget_of_enough_margin_answers(runner, video, fixed):
    margins = {budget: answer.answer_margin for budget, answer in fixed.items()}
    assert len(set(margins.values())) == len(BUDGETS)
    order = sorted(margins.values())
    # Between the margins, not at them: with another part of the prompt in the cache they come out a little different.
    between = [(a + b) / 2 for a, b in pairwise(order) if b - a > 2 * JITTER]
    if ONE_KERNEL:
        assert len(between) == len(order) - 1, "choose a question whose margins differ"
    for least in [0.0, *between, 9.0]:
        runner.margin = least
        found = video.ask(QUESTION)
        wanted = next((budget for budget in LADDER if margins[budget] >= least), LADDER[-1])
        assert (found.budget, found.margin) == (wanted, least)
        assert found.budgets_tried == [budget for budget in LADDER if budget <= wanted]
        assert (found.answer, found.tokens_kept) == (fixed[wanted].answer, wanted)
        assert found.answer_margin == pytest.approx(margins[wanted], abs=0.1)
        assert found.positions_sha256 == fixed[wanted].positions_sha256


def test_only_compression_and_prefill_are_repeated(runner, video, monkeypatch):
    runner.margin = 9.0
    monkeypatch.setattr(runner.vision, "encode", None)
    first = video.ask("what changed")
    assert first.budgets_tried == LADDER and first.compress_s > 0
    found = video.ask(QUESTION)
    # What stands before the video is in the decoder's cache. The largest budget's tokens are, too, but a question
    # begins with the smallest again: so an answer does not depend on what was asked before.
    after_the_video = (found.prefill_tokens - sum(LADDER)) / len(LADDER)
    assert found.budgets_tried == LADDER and after_the_video == 1 + 1 + len(QUESTION.split()) + 1
    # The first question made the tokens of every budget.
    assert found.compress_s == 0 and found.prefill_s < found.ttft_s
    runner.margin = 0.0
    assert video.ask(QUESTION).prefill_tokens > LADDER[0]
    assert video.ask(QUESTION).prefill_tokens < LADDER[0]  # the smallest one's are there


def test_an_answer_that_is_not_given_is_not_shown(runner, video):
    runner.margin = 9.0
    stream = video.stream("what appeared last")
    assert "".join(stream) == stream.result.answer
    assert stream.result.tokens_generated == len(stream.result.answer.split())
    assert stream.result.ttft_s > stream.result.prefill_s


def test_follow_ups_know_the_answers_that_were_given(runner, video):
    runner.margin = 0.0
    first = video.ask(QUESTION)
    video.ask("what changed", follow_up=True)
    said = [turn["content"][-1]["text"] for turn in video.turns]
    assert (said[0], said[1], said[2]) == (QUESTION, first.answer, "what changed")


def test_drawn_tokens_have_no_say(runner, video):
    with pytest.raises(ConfigError, match="auto needs greedy answers"):
        video.ask(QUESTION, sampling=SamplingConfig(temperature=1.0))


def test_what_was_calibrated_is_the_default(tmp_path):
    manifest = write_tiny_bundle(tmp_path / "bundle").manifest
    (uniform,) = by_budget(manifest, "uniform")
    methods = tuple(replace(uniform, budget=budget) for budget in (18, 3, 9, 6))
    manifest = replace(manifest, methods=methods, auto={"uniform": AutoEntry((6, 18), 0.3)})
    manifest = Manifest.from_json(manifest.to_json())
    assert [entry.budget for entry in rungs(manifest, None)] == [6, 18]
    assert margin_threshold(manifest, "uniform") == 0.3
    assert margin_threshold(manifest, "uniform", 0.0) == 0.0
    bare = replace(manifest, auto={})
    assert [entry.budget for entry in rungs(bare, "uniform")] == [6, 9, 18]  # of 4 frames
    assert margin_threshold(bare, "uniform") == DEFAULT_MARGIN
    assert [entry.budget for entry in rungs(replace(bare, methods=methods[1:2]), "uniform")] == [3]
    with pytest.raises(BundleError, match="uniform that the bundle does not hold"):
        rungs(replace(manifest, auto={"uniform": AutoEntry((6, 7), 0.3)}), "uniform")


# Times to first token. What a stage takes is made up: 100 s for the encoder, and 10 s a token.
# Beside that, what the stages really take is nothing.


@pytest.fixture
def times(monkeypatch):
    """Stages measured, in order."""
    measured = []

    def encoder(loaded):
        measured.append("encode")
        return 100.0

    def first_token(loaded, method):
        measured.append(method.budget)
        return 10.0 * method.budget

    monkeypatch.setattr("edgevtc.latency.encoder_seconds", encoder)
    monkeypatch.setattr("edgevtc.latency.first_token_seconds", first_token)
    return measured


@pytest.mark.parametrize(("limit", "budget"), [(250, 12), (400, 29), (1000, 86), (9999, 144)])
def test_the_largest_budget_that_fits_is_taken_and_no_more_is_measured(times, tmp_path, samples, limit, budget):
    runner = Runner(method=METHOD, ttft_s=limit, cache_dir=tmp_path)
    assert runner.method.budget == budget
    beyond = BUDGETS[: BUDGETS.index(budget) + 2]
    assert times == ["encode", *beyond]
    answer = runner.open(samples / CLIP).ask(QUESTION)
    assert (answer.budget, answer.ttft_limit_s) == (budget, limit)
    assert Runner(method=METHOD, ttft_s=limit, cache_dir=tmp_path).method.budget == budget
    assert times == ["encode", *beyond]  # remembered


def test_reading_the_video_counts(times, tmp_path):
    runner = Runner(method=METHOD, ttft_s=1000, cache_dir=tmp_path)
    assert [entry.budget for entry in runner.methods(0.0)] == [86]  # no more than was expected to fit
    assert [entry.budget for entry in runner.methods(450.0)] == [29]
    with pytest.raises(ConfigError, match=r"at least 1070 s, with 12 tokens \(.* this video took 950 s\)"):
        runner.methods(950.0)


def test_the_smallest_reachable_time_is_named(times, tmp_path):
    with pytest.raises(ConfigError, match=r"within 0.1 s here: uniform takes at least 220 s, with 12 tokens") as error:
        Runner(method=METHOD, ttft_s=0.1, cache_dir=tmp_path)
    (path,) = tmp_path.rglob("*.json")
    assert str(error.value).endswith(f"delete {path}")
    assert "\n" not in str(error.value)


def test_what_was_measured_elsewhere_does_not_count(times, tmp_path):
    Runner(method=METHOD, ttft_s=300, cache_dir=tmp_path, threads=1)
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())["seconds"] == {"encode": 100, "uniform-b12": 120, "uniform-b29": 290}
    Runner(method=METHOD, ttft_s=300, cache_dir=tmp_path, threads=2)
    assert len(list(tmp_path.rglob("*.json"))) == 2
    path.write_text("{")
    before = len(times)
    Runner(method=METHOD, ttft_s=300, cache_dir=tmp_path, threads=1)
    assert len(times) == before + 3  # a damaged file is no measurement


def test_a_folder_that_cannot_be_written_is_named(times, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file.*cannot be written to"):
        Runner(method=METHOD, ttft_s=300, cache_dir=tmp_path / "file")


def test_real_times_are_taken_of_every_stage(tmp_path):
    runner = Runner(method="holitom")
    latency = Latency(runner, tmp_path)
    smallest = by_budget(runner.bundle.manifest, "holitom")[0]
    assert latency.encode_s > 0 and latency.answer_s(smallest) > 0
    assert latency.largest([smallest], 1e6) is smallest


def test_receipts(samples, fixed):
    answer = fixed[58]
    assert (answer.method, answer.budget, answer.budgets_tried, answer.margin) == (METHOD, 58, [58], None)
    assert answer.answer_margin > 0 and answer.segments is None
    assert len(answer.times_s) == 16 and answer.times_s[0] == 0 and np.all(np.diff(answer.times_s) > 0)
    assert {len(value) for name, value in asdict(answer).items() if name.endswith("sha256")} == {64}
    assert (answer.device, answer.weight_format, answer.sampling.seed) == ("cpu", "w8a8", 0)
    assert answer.backend.startswith("onnxruntime ") and answer.edgevtc_version
    assert fixed[12].frames_sha256 == answer.frames_sha256
    other = Runner(method=METHOD, budget=58).open(samples / "gate.mp4").ask(QUESTION)
    assert other.frames_sha256 != answer.frames_sha256


def test_segments_are_named_by_their_first_frames(video, monkeypatch):
    visual, span = video.compressed(video.methods[0])
    divided = replace(visual, segments=np.array([0] * 3 + [1] + [2] * 12, np.int32))
    key = video.methods[0].name, video.methods[0].budget
    monkeypatch.setitem(video._compressed, key, (divided, span))
    video.runner.margin = 0.0
    assert video.ask(QUESTION).segments == [0, 3, 4]
