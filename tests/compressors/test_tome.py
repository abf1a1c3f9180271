"""ToMe against what the published code made of the frames of synthetic clips in two rounds, and its rounds."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create
from edgevtc.compressors.tome import merge_round, rounds_to

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("tome_*.npz"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return dict(np.load(request.param))


def test_all_files_are_here():
    assert len(FILES) == 6


def test_a_published_round(golden):
    frames, size, _ = golden["tokens"].shape
    slot, merged = merge_round(torch.from_numpy(golden["metric"]), [size - int(golden["r1"])] * frames)
    unmerged = golden["unmerged_a1"].shape[1]
    own = np.take_along_axis(slot.numpy(), golden["slot_token1"], 1)
    assert (own == np.arange(own.shape[1])).all()
    assert (np.sort(2 * golden["merged_a1"]) == merged.nonzero()[:, 1].reshape(frames, -1).numpy()).all()
    into = np.take_along_axis(slot.numpy(), 2 * golden["merged_a1"], 1)
    assert (into == unmerged + golden["merged_into_b1"]).all()


def test_published_groups_positions_and_features(golden):
    frames, size, _ = golden["tokens"].shape
    compressor = create("tome", frames, size, len(golden["pos"]), metric="tokens")
    after_first = size - int(golden["r1"])
    compressor.rounds = [[count] * frames for count in (after_first, after_first - int(golden["r2"]))]
    x = torch.from_numpy(golden["tokens"])
    given = Features(x, None, None, torch.from_numpy(golden["metric"]))
    assert given.keys is not None
    group, _ = compressor.merge(x, given.keys)
    assert (group.numpy() == golden["group"]).all()
    plan = compressor.plan(given)
    assert plan.positions.tolist() == np.sort(golden["pos"]).tolist()
    order = golden["slot_token2"].argsort(1)
    expected = np.take_along_axis(golden["tokens_out2"], order[..., None], 1).reshape(len(golden["pos"]), -1)
    np.testing.assert_allclose(compressor.apply(plan, x), expected, atol=1e-5)
    assert (plan.counts().numpy() == np.take_along_axis(golden["size2"], order, 1).ravel()).all()


@pytest.mark.parametrize("metric", ["keys", "tokens"])
def test_a_merged_token_is_the_mean_of_its_members(metric, make_clip):
    clip = {name: torch.from_numpy(value) for name, value in make_clip((6, 25, 8)).items()}
    compressor = create("tome", 6, 25, 26, metric=metric)
    plan = compressor.plan(Features(clip["frame_tokens"], None, None, clip["keys"]))
    out = compressor.apply(plan, clip["frame_tokens"])
    for slot, position in enumerate(plan.positions.tolist()):
        members = (plan.assignment == slot).nonzero()
        assert (members[:, 0] == position // 25).all()
        torch.testing.assert_close(out[slot], clip["frame_tokens"][plan.assignment == slot].mean(0))
    assert plan.counts().sum() == 6 * 25
    assert (plan.positions // 25).bincount().tolist() == compressor.shares == [4, 4, 5, 4, 4, 5]


def test_the_most_similar_pairs_merge_first():
    angle = torch.tensor([0.0, 0.3, 1.0, 1.1, 2.0, 2.6])
    keys = torch.stack([angle.cos(), angle.sin()], -1)[None]
    assert create("tome", 1, 6, 5).plan(Features(keys, None, None, keys)).assignment.tolist() == [[0, 1, 2, 2, 3, 4]]
    assert create("tome", 1, 6, 4, spare_rounds=0).plan(Features(keys, None, None, keys)).assignment.tolist() == [
        [0, 0, 1, 1, 2, 3]
    ]


def test_rounds_are_few_and_even():
    assert rounds_to([20] * 2, 196) == [[111] * 2, [63] * 2, [35] * 2, [20] * 2]
    assert rounds_to([5, 6], 36) == [[20, 20], [10, 10], [5, 6]]
    assert rounds_to([9, 8], 9) == [[9, 8]]
    assert rounds_to([9, 9], 9) == []
    for size in range(1, 40):
        for share in range(1, size + 1):
            left = size
            for counts in rounds_to([share, min(share + 1, size)], size):
                assert left - left // 2 <= min(counts) <= max(counts) <= left
                left = max(counts)
            assert left <= share + 1


@pytest.mark.parametrize("spare", [1, 3])
def test_a_spare_round_leaves_every_round_a_choice(spare):
    assert rounds_to([9], 36) == [[18], [9]]
    assert rounds_to([9], 36, 1) == [[23], [14], [9]]
    assert rounds_to([9, 9], 9, spare) == []
    for size in range(16, 60):
        for share in range(8, size // 2 + 2):
            rounds = rounds_to([share], size, spare)
            assert len(rounds) == len(rounds_to([share], size)) + spare
            assert all(left - left // 2 < after for [left], [after] in pairwise([[size], *rounds]))
