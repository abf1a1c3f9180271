"""EVS against what the published code kept of synthetic clips, and its budgets below a frame."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("evs_*.npz"))


def test_all_files_are_here():
    assert len(FILES) == 6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_positions(path):
    golden = dict(np.load(path))
    frames, size, _ = golden["tokens"].shape
    plan = create("evs", frames, size, len(golden["pos"])).plan(Features(torch.from_numpy(golden["tokens"])))
    assert plan.positions.tolist() == golden["pos"].tolist()
    assert plan.counts().tolist() == [1] * len(golden["pos"])


def test_below_a_frame_the_first_one_has_its_fair_share(make_clip):
    x = torch.from_numpy(make_clip((4, 9, 8), "noise")["frame_tokens"])
    positions = create("evs", 4, 9, 6).plan(Features(x)).positions.tolist()
    change = 1 - torch.cosine_similarity(x[1:], x[:-1], dim=-1).flatten()
    assert positions == [2, 6, *sorted((change.topk(4).indices + 9).tolist())]


def test_what_stands_still_is_kept_in_order_of_time():
    x = torch.randn(1, 9, 8, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1).clone()
    x[3, 5] *= -1
    assert create("evs", 4, 9, 12).plan(Features(x)).positions.tolist() == [*range(11), 32]
