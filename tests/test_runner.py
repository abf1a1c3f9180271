"""From a real mp4 to an answer, through the embedded bundle."""

import itertools
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgevtc import Runner
from edgevtc.errors import ConfigError, VideoError

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from bench_receipts import leave_graphs_unoptimized

SAMPLE = "corridor.mp4"


@pytest.fixture(scope="module")
def runner():
    return Runner(method="none")


@pytest.fixture(scope="module")
def video(runner, samples):
    return runner.open(samples / SAMPLE)


def test_every_sample_is_answered_right(runner, samples, sample_questions):
    wrong = []
    for entry in sample_questions:
        video = runner.open(samples / entry["file"])
        said = {item["question"]: video.ask(item["question"]).answer for item in entry["questions"]}
        wrong += [item for item in entry["questions"] if said[item["question"]] != item["answer"]]
    assert not wrong
    assert len(sample_questions) >= 5


def test_every_method_and_budget_keeps_exactly_its_tokens(runner, video):
    methods = runner.bundle.manifest.methods
    assert len(methods) > 5
    for method in methods:
        visual = runner.vision.compress(video.encoded, method)
        assert visual.tokens.shape == (method.budget, runner.bundle.manifest.vision.hidden_size)
        assert np.all(np.diff(visual.positions) > 0)
        assert visual.counts.sum() == (visual.assignment >= 0).sum()


@pytest.mark.parametrize("method", ["uniform", "infomerge", "holitom"])
@pytest.mark.parametrize("ratio", [0.25, 0.15, 0.10, 0.05, 0.02])
def test_ask_answers_with_exactly_the_share_asked_for(samples, method, ratio):
    answer = Runner(method=method, retention_ratio=ratio).open(samples / SAMPLE).ask("what changed")
    assert answer.tokens_kept == round(ratio * answer.tokens_total) and answer.answer
    assert answer.method == method


def test_a_second_question_computes_only_its_own_words(samples):
    video = Runner(method="none").open(samples / SAMPLE)
    first, second = video.ask("what changed"), video.ask("was there a flash")
    # The prompt is <bos>, the visual tokens, the newline, <q>, the words, <a>.
    assert first.prefill_tokens == 1 + 576 + 1 + 1 + 2 + 1
    assert second.prefill_tokens == 4 + 1
    assert second.ttft_s < 1


def test_an_answer_does_not_depend_on_what_was_asked_before(runner, samples, sample_questions):
    questions = [item["question"] for item in sample_questions[0]["questions"][:3]]
    alone = {q: runner.open(samples / SAMPLE).ask(q).answer for q in questions}
    for order in itertools.permutations(questions):
        video = runner.open(samples / SAMPLE)
        assert {q: video.ask(q).answer for q in order} == alone


def test_videos_do_not_mix(runner, samples, sample_questions):
    entries = sample_questions[:2]
    videos = [runner.open(samples / entry["file"]) for entry in entries]
    for round_ in range(2):
        for entry, video in zip(entries, videos, strict=True):
            item = entry["questions"][round_]
            assert video.ask(item["question"]).answer == item["answer"]


def test_streaming_gives_the_same_answer(video):
    stream = video.stream("what appeared last")
    pieces = list(stream)
    assert "".join(pieces) == stream.result.answer == video.ask("what appeared last").answer
    assert stream.result.tokens_generated == len(stream.result.answer.split())
    assert stream.result.finish_reason == "stop"


def test_max_tokens_cuts_and_says_so(video):
    answer = video.ask("what appeared last", max_tokens=1)
    assert answer.tokens_generated == 1 and answer.finish_reason == "length"


def test_unknown_words_are_named_and_answered_all_the_same(video):
    answer = video.ask("What color is the Elephant?")
    assert answer.unknown_words == ["Elephant"] and answer.answer


def test_follow_ups_are_part_of_the_conversation(video):
    video.ask("what changed")
    video.ask("was there a flash", follow_up=True)
    assert [turn["role"] for turn in video.turns] == ["user", "assistant"] * 2
    video.ask("what changed")
    assert len(video.turns) == 2


def test_a_turn_stands_once_it_is_answered(video):
    video.ask("what changed")
    before, too_long = video.turns, "is there a red circle or a blue square " * 400
    for follow_up in (True, False):
        with pytest.raises(ConfigError, match="position"):
            video.ask(too_long, follow_up=follow_up)
        assert video.turns == before
    for _ in video.stream("was there a flash", follow_up=True):
        assert video.turns == before
        break
    assert video.turns == before
    assert video.ask("was there a flash", follow_up=True).answer
    assert [turn["role"] for turn in video.turns] == ["user", "assistant"] * 2


def test_times_add_up(runner, samples):
    answer = runner.open(samples / SAMPLE).ask("what changed")
    parts = [answer.frames_s, answer.encode_s, answer.compress_s, answer.prefill_s]
    assert all(part > 0 for part in parts)
    # Reading runs beside encoding; nothing else does.
    assert max(answer.frames_s, answer.encode_s) + answer.prefill_s < answer.ttft_s < sum(parts) + 0.5


def test_the_same_video_gives_the_same_receipt(samples):
    answers = [Runner(method="uniform", retention_ratio=0.1).open(samples / SAMPLE).ask("what changed") for _ in "ab"]
    assert answers[0].positions_sha256 == answers[1].positions_sha256
    assert answers[0].answer == answers[1].answer
    assert len(answers[0].bundle_sha256) == 64


@pytest.mark.parametrize("method", ["infomerge", "holitom", "ustc", "flashvid", "scissor"])
def test_a_receipt_does_not_hang_on_how_a_graph_is_optimized(samples, monkeypatch, method):
    def receipt():
        answer = Runner(method=method, retention_ratio=0.1, threads=1).open(samples / SAMPLE).ask("what changed")
        return answer.positions_sha256, answer.segments, answer.answer

    optimized = receipt()
    monkeypatch.setattr(onnxruntime, "SessionOptions", onnxruntime.SessionOptions)  # put back afterwards
    leave_graphs_unoptimized()
    assert receipt() == optimized


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "infomerg"}, "no method 'infomerg'"),
        ({"method": "uniform", "budget": 7}, "keeps no 7 of 576 tokens by uniform"),
        ({"retention_ratio": 0}, "retention ratio 0 is not valid"),
        ({"retention_ratio": 0.1, "budget": 58}, "not several"),
        ({"ttft_s": 1, "budget": 58}, "not several"),
        ({"ttft_s": 0}, "0 s is not valid"),
        ({"margin": 0.1}, "only where the budget is auto"),
        ({"budget": "auto", "margin": -1}, "margin -1 is not valid"),
        ({"device": "tpu"}, "unknown device 'tpu': one of: cpu, cuda"),
        ({"threads": 0}, "0 threads is not valid"),
        ({"weight_format": "int2"}, "no decoder in 'int2'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Runner(**arguments)


def test_a_missing_video_is_named(runner):
    with pytest.raises(VideoError, match=r"nowhere\.mp4"):
        runner.open("nowhere.mp4")


@pytest.mark.parametrize("question", ["", "  ", "what is <video>"])
def test_questions_that_cannot_be_asked(video, question):
    with pytest.raises(Exception, match=r"empty|places the video") as error:
        video.ask(question)
    assert type(error.value).__module__ == "edgevtc.errors"
    assert video.ask("what changed").answer


def test_a_prompt_beyond_the_rotary_table_is_refused(video):
    with pytest.raises(ConfigError, match="position"):
        video.ask("is there a red circle or a blue square " * 400)
    assert video.ask("what changed").answer
