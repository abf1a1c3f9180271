"""Footage from outside the world: seeded, varied, and answered in the model's own words."""

from __future__ import annotations

import numpy as np

from edgevtc.eval.world_outside import CANNOT_TELL, outside_frames
from edgevtc.eval.world_words import decode, encode


def test_equal_seeds_give_equal_clips_and_others_differ():
    first, again, other = (outside_frames(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.shape == (16, 96, 96, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_clips_differ_in_detail_colour_and_motion():
    rng = np.random.default_rng(1)
    clips = np.stack([outside_frames(rng) for _ in range(24)]).astype(float)
    detail = np.abs(np.diff(clips, axis=3)).mean((1, 2, 3, 4))
    motion = np.abs(np.diff(clips, axis=1)).mean((1, 2, 3, 4))
    for measure in (detail, motion, clips.mean((1, 2, 3, 4))):
        assert measure.max() > 3 * measure.min()


def test_the_abstention_is_made_of_the_models_words():
    assert decode(encode(CANNOT_TELL)) == CANNOT_TELL
