"""DivPrune against what the published code chose from each frame of synthetic clips, step by step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("divprune_*.npz"))


def test_all_files_are_here():
    assert len(FILES) == 6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_order(path):
    """A budget of k tokens a frame is the first k of the order."""
    golden = dict(np.load(path))
    frames, size, _ = golden["tokens"].shape
    features, order = Features(torch.from_numpy(golden["tokens"])), golden["frame_order"]
    for steps in {1, 2, order.shape[1] // 2, order.shape[1]} - {0}:
        kept = create("divprune", frames, size, steps * frames).plan(features).positions.reshape(frames, steps) % size
        assert (kept.numpy() == np.sort(order[:, :steps])).all()


@pytest.mark.parametrize("budget", [3, 9, 11, 31])
def test_frames_differ_by_one_token(budget, make_clip):
    features = Features(torch.from_numpy(make_clip((4, 9, 8), "noise")["frame_tokens"]))
    kept = create("divprune", 4, 9, budget).plan(features).positions
    whole = create("divprune", 4, 9, -(-budget // 4) * 4).plan(features).positions
    counts = (kept // 9).bincount(minlength=4)
    assert counts.max() - counts.min() == 1
    assert set(kept.tolist()) < set(whole.tolist())


def test_duplicates_are_chosen_last_and_once():
    x = torch.eye(4).repeat(1, 2, 1)
    assert create("divprune", 1, 8, 4).plan(Features(x)).positions.tolist() == [0, 1, 2, 3]
    assert create("divprune", 1, 8, 6).plan(Features(x)).positions.tolist() == [0, 1, 2, 3, 4, 5]
