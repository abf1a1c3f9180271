"""Drawing tokens: greedy by default, within top-k and top-p, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevtc.decoder.sampling import Sampler, SamplingConfig
from edgevtc.errors import ConfigError

LOGITS = st.lists(st.floats(-20, 20), min_size=1, max_size=30).map(lambda v: np.array(v, np.float32))


@given(LOGITS)
def test_greedy_takes_the_first_of_the_largest(logits):
    assert Sampler(SamplingConfig())(logits) == int(np.flatnonzero(logits == logits.max())[0])


@given(LOGITS, st.integers(1, 5), st.integers(0, 1000))
def test_top_k_draws_among_the_k_largest(logits, k, seed):
    token = Sampler(SamplingConfig(temperature=5.0, top_k=k, seed=seed))(logits)
    assert (logits > logits[token]).sum() < k


@given(LOGITS, st.floats(0.01, 1), st.integers(0, 1000))
def test_top_p_draws_within_the_mass(logits, p, seed):
    token = Sampler(SamplingConfig(temperature=1.0, top_p=p, seed=seed))(logits)
    mass = np.exp(logits.astype(float) - logits.max())
    mass /= mass.sum()
    assert mass[logits > logits[token]].sum() < p + 1e-6


def test_frequencies_follow_the_softmax():
    logits = np.log(np.array([0.6, 0.3, 0.1], np.float32))
    sampler = Sampler(SamplingConfig(temperature=1.0, seed=3))
    counts = np.bincount([sampler(logits) for _ in range(4000)], minlength=3) / 4000
    assert np.abs(counts - [0.6, 0.3, 0.1]).max() < 0.03


def test_the_same_seed_draws_the_same():
    logits = np.zeros(50, np.float32)
    draws = [[Sampler(SamplingConfig(1.0, seed=seed))(logits) for _ in range(3)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}]
)
def test_invalid_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        SamplingConfig(**bad)
