"""InfoMerge's fixed-shape program against a plain one, on random videos: the same choices and the same tokens."""

import numpy as np
import pytest
import torch
from infomerge_reference import infomerge

from edgevtc.compressors import Features, create

pytestmark = pytest.mark.export

VIDEOS = 240

#: Choices that hang on a smaller relative difference may differ between float32 and float64.
MARGIN = 1e-5


def video(rng: np.random.Generator):
    """Scenes of a few frames, with a static share of positions; descriptors that follow the scenes."""
    frames, size, dim = rng.integers(2, 10), rng.integers(4, 17), rng.integers(6, 15)
    x = rng.standard_normal((frames, size, dim))
    descriptors = rng.standard_normal((frames, 6))
    scene, look = rng.standard_normal((size, dim)), rng.standard_normal(6)
    still = np.zeros((size, 1), dtype=bool)
    for t in range(frames):
        if t == 0 or rng.random() < 0.3:
            scene, look = rng.standard_normal((size, dim)), rng.standard_normal(6)
            still = rng.random((size, 1)) < 0.5
        x[t] = scene + np.where(still, 0.1, 0.6) * x[t]
        descriptors[t] = look + 0.1 * descriptors[t]
    saliency = rng.random((frames, size)) ** 3
    return tuple(value.astype(np.float32) for value in (x, saliency, descriptors))


def random_config(rng: np.random.Generator) -> dict:
    return {
        "min_segments": int(rng.integers(1, 4)),
        "static_share": float(rng.choice([0.0, 0.1, 0.3, 0.6])),
        "context_share": float(rng.choice([0.3, 0.4, 0.7, 1.0])),
        "anchor_interval": int(rng.integers(1, 5)),
        "penalty": float(rng.choice([1.0, 12.0])),
        "richness_weight": float(rng.choice([0.1, 0.5])),
    }


def program(x, saliency, descriptors, budget, config):
    """The compressor, its plan and its tokens."""
    compressor = create("infomerge", x.shape[0], x.shape[1], budget, **config)
    features = Features(*(torch.from_numpy(value) for value in (x, saliency, descriptors)))
    plan = compressor.plan(features)
    return compressor, plan, compressor.apply(plan, features.frame_tokens)


def test_equals_the_plain_program(capsys):
    rng = np.random.default_rng(0)
    torch.set_num_threads(1)
    left_out = repeated = 0
    for number in range(VIDEOS):
        features, config = video(rng), random_config(rng)
        frames, size, _ = features[0].shape
        few = number % 6 == 5  # a token a frame or less, where salient ones are spread over the clip
        budget = int(rng.integers(1, frames + 1 if few else frames * size * 2 // 3))
        compressor, plan, tokens = program(*features, budget, config)
        plain = infomerge(*features, budget, compressor.config)
        if plain.margin < MARGIN:
            left_out += 1
            continue
        kept = {divmod(position, size) for position in plan.positions.tolist()}
        assert kept == plain.salient | set(plain.members), f"video {number}"
        slots = sorted(kept)
        for anchor, members in plain.members.items():
            found = {divmod(int(i), size) for i in np.flatnonzero(plan.assignment.reshape(-1) == slots.index(anchor))}
            assert found == {anchor, *members}, f"video {number}: members of {anchor}"
        expected = np.array([plain.tokens[token] for token in slots])
        np.testing.assert_allclose(tokens, expected, atol=2e-6, rtol=0, err_msg=f"video {number}")
        repeated += any(len(segment) > 1 for segment in plain.segments) and compressor.num_static > 0
    with capsys.disabled():
        print(f"\n{VIDEOS} videos, {left_out} left out for a choice closer than {MARGIN:g}")
    assert VIDEOS - left_out >= 200
    assert repeated > 0.4 * VIDEOS, "too few videos reach the static prior"
