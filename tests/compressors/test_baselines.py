"""The selections that do not look at the video, counted by hand."""

import re

import pytest

from edgevtc.compressors import Features, create
from edgevtc.errors import ConfigError

pytestmark = pytest.mark.export


def positions(method, frames, size, budget, **config):
    return create(method, frames, size, budget, **config).plan(Features(None)).positions.tolist()


def test_uniform_shares_are_even_and_their_start_moves():
    assert positions("uniform", 3, 4, 5) == [2, 4, 6, 9, 11]


def test_frames_are_whole_but_for_the_last():
    assert positions("frames", 8, 3, 6) == [6, 7, 8, 18, 19, 20]
    assert positions("frames", 6, 4, 10) == [4, 5, 6, 7, 12, 13, 14, 15, 21, 23]


def test_a_budget_below_a_frame_is_an_even_subset_of_the_middle_one():
    assert positions("frames", 5, 6, 3) == [13, 15, 17]


def test_random_is_the_same_for_a_seed():
    first = positions("random", 8, 9, 20)
    # The stream of Python's generator for seed 0 begins 0.844, 0.758, 0.421, 0.259, 0.511: the fourth is the least.
    assert positions("random", 1, 5, 1) == [3]
    assert first == positions("random", 8, 9, 20, seed=0)
    assert first != positions("random", 8, 9, 20, seed=1)
    with pytest.raises(ConfigError, match="seed=-1 is out of range"):
        create("random", 8, 9, 20, seed=-1)


def test_random_draws_every_token_alike():
    kept = [sum(p in positions("random", 2, 5, 5, seed=seed) for seed in range(200)) for p in range(10)]
    assert sum(kept) == 1000 and min(kept) > 70 and max(kept) < 130


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("nope", "penalty='nope' is no finite number: give one from 0.0 to inf"),
        (float("inf"), "penalty=inf is no finite number"),
        (float("nan"), "penalty=nan is no finite number"),
        (-1, "penalty=-1 is out of range: give a value from 0.0 to inf"),
    ],
)
def test_a_value_that_is_no_number_of_its_range_is_refused_with_the_range(value, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        create("infomerge", 8, 36, 60, penalty=value)


@pytest.mark.parametrize("value", [2.5, "2.5", float("inf"), 10**9])
def test_a_count_is_whole_and_within_reason(value):
    with pytest.raises(ConfigError, match=r"anchor_interval=.*(no whole number|out of range).* from 1 to 4096"):
        create("infomerge", 8, 36, 60, anchor_interval=value)
