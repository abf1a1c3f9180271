"""Scores: intervals over videos, groups, and the blind control."""

from __future__ import annotations

import pytest

from edgevtc.eval.world_scores import Blind, Result, group, score


def answers(*videos: str) -> list[Result]:
    """Results of videos given as strings of 1 (right) and 0 (wrong)."""
    return [
        Result(video, mark == "1", {"type": "color" if place % 2 else "shape"})
        for video, marks in enumerate(videos)
        for place, mark in enumerate(marks)
    ]


def test_accuracy_counts_questions_and_its_interval_resamples_videos():
    some = score(answers("1110", "10"))
    assert some.accuracy == pytest.approx(4 / 6)
    assert some.questions == 6
    assert (some.low, some.high) == (0.5, 0.75)
    assert score(answers("11", "1")).low == 1.0


def test_questions_of_one_video_are_not_independent():
    clustered = score(answers(*["1111"] * 20, *["0000"] * 20))
    spread = score(answers(*["1010"] * 40))
    assert clustered.accuracy == spread.accuracy == 0.5
    assert clustered.high - clustered.low > 0.2 > spread.high - spread.low


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="at least one result"):
        score([])


def test_groups_keep_all_results_that_have_the_name():
    parts = group(answers("110", "01"), "type")
    assert {name: len(part) for name, part in parts.items()} == {"shape": 3, "color": 2}
    assert group(answers("1"), "camera") == {}


def test_the_blind_control_answers_by_the_text_alone():
    blind = Blind(videos=120, seed=5)
    assert blind.answer("was there a flash") in ("yes", "no")
    assert blind.answer("how many objects are there") in ("one", "two", "three", "four", "five", "six")
    assert blind.answer("a question that nobody asks") == ""
