"""DyCoke's temporal merging against what the published code kept of synthetic clips, and its shares."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("dycoke_*.npz"))


def test_all_files_are_here():
    assert len(FILES) == 6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_counts_and_positions(path):
    golden = dict(np.load(path))
    frames, size, _ = golden["tokens"].shape
    compressor = create("dycoke", frames, size, len(golden["pos"]), pruning_rate=golden["k"].item())
    assert compressor.shares == golden["frame_counts"].tolist()
    plan = compressor.plan(Features(torch.from_numpy(golden["tokens"])))
    assert plan.positions.tolist() == golden["pos"].tolist()


def test_a_larger_budget_goes_to_the_pruned_frames():
    # LLaVA-OneVision at the published k = 0.7, then budgets that no k gives exactly.
    published = create("dycoke", 32, 196, 3098).shares
    assert sorted(set(published)) == [58, 196] and published.count(196) == 9
    assert published[28:] == [196, 58, 196, 58]
    assert create("dycoke", 8, 10, 48).shares == [10, 4, 4, 4, 10, 3, 10, 3]
    assert create("dycoke", 9, 10, 80).shares == [10] * 8 + [0]
    assert create("dycoke", 9, 10, 89).shares == [10] * 8 + [9]


def test_a_smaller_budget_is_shared_in_proportion(make_clip):
    compressor = create("dycoke", 8, 10, 15)
    assert compressor.shares == [4, 1, 1, 1, 3, 1, 3, 1]
    x = torch.from_numpy(make_clip((8, 10, 8), "noise")["frame_tokens"])
    kept = [divmod(p, 10) for p in compressor.plan(Features(x)).positions.tolist()]
    assert [n for t, n in kept if t == 0] == [1, 3, 6, 8]
    for frame, reference in ((2, 0), (3, 2), (4, 0), (6, 4)):
        similarity = torch.cosine_similarity(x[frame], x[reference], dim=-1)
        least = similarity.topk(compressor.shares[frame], largest=False).indices
        assert [n for t, n in kept if t == frame] == sorted(least.tolist())


def test_regular_last_frames():
    assert create("dycoke", 8, 10, 38, last_frames="regular").shares == [10, 3, 3, 3, 10, 3, 3, 3]
    assert create("dycoke", 5, 10, 29, last_frames="regular").shares == [10, 3, 3, 3, 10]
