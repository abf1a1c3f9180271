"""VidCom² against what the published code made of synthetic clips, and its shares."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("vidcom2_*.npz"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return dict(np.load(request.param))


def program(golden):
    frames, size, _ = golden["tokens"].shape
    return create("vidcom2", frames, size, len(golden["pos"]), retention_ratio=golden["retention"].item())


def test_all_files_are_here():
    assert len(FILES) == 6


def test_published_channels_and_similarities(golden):
    compressor, x = program(golden), torch.from_numpy(golden["tokens"])
    assert compressor.channels(x).tolist() == golden["channels"].tolist()
    for ours, theirs in zip(compressor.similarities(x), (golden["video_score"], golden["frame_score"]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_published_scales_and_counts(golden):
    compressor = program(golden)
    video, _ = compressor.similarities(torch.from_numpy(golden["tokens"]))
    scales = compressor.scales(video)
    np.testing.assert_allclose(scales, golden["scales"], atol=1e-4)
    assert compressor.share(scales).tolist() == golden["counts"].tolist()


def test_published_positions(golden):
    plan = program(golden).plan(Features(torch.from_numpy(golden["tokens"])))
    assert plan.positions.tolist() == golden["pos"].tolist()


@pytest.mark.parametrize("budget", [2, 5, 17, 40, 49])
def test_shares_round_to_the_budget(budget):
    scales = torch.tensor([0.2, 0.31, 0.2, 0.24, 0.2])
    shares = create("vidcom2", 5, 10, budget).share(scales)
    assert shares.sum() == budget and shares.max() <= 10
    if budget < 5:
        assert shares.tolist() == [0, 1, 0, 1, 0]
        return
    factors = torch.arange(0.0, 20.0, 0.001)[:, None]
    published = torch.round(factors * scales * 10).clamp(1, 10)
    # Frames of equal scale reach the half together; the first one goes ahead.
    nearest = published[(published.sum(1) <= budget).nonzero()[-1, 0]]
    assert ((shares - nearest >= 0) & (shares - nearest <= 1)).all()
