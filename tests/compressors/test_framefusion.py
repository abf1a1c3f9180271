"""FrameFusion's single step against the first step of the published code on synthetic videos."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create
from edgevtc.compressors.blocks.frames import change_since

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("framefusion_*.npz"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return dict(np.load(request.param))


def test_the_vectors_are_there():
    assert len(FILES) == 6
    modes = {int(np.load(path)["modes"][0]) for path in FILES}
    assert modes == {0, 1}, "merging by threshold and of the most similar tokens"


def test_published_similarity(golden):
    x = torch.from_numpy(golden["tokens"])
    ours = 1 - change_since(x, [0, *range(len(x) - 1)])[1:]
    np.testing.assert_allclose(ours, golden["s0_similarity"][1:], rtol=0, atol=1e-5)


def test_published_positions_and_tokens(golden):
    frames, size, _ = golden["tokens"].shape
    x = torch.from_numpy(golden["tokens"])
    positions = golden["s0_pos"]
    compressor = create("framefusion", frames, size, len(positions), threshold=golden["similarity"].item())
    plan = compressor.plan(Features(x, torch.rand(frames, size)))
    assert plan.positions.tolist() == positions.tolist()
    np.testing.assert_allclose(compressor.apply(plan, x), golden["s0_tokens"], rtol=0, atol=1e-5)


def test_runs_that_got_the_most_saliency_stay():
    # Position 0 stands still for three frames, position 1 changes each time.
    x = torch.zeros(3, 2, 4)
    x[:, 0, 0] = torch.tensor([1.0, 2.0, 3.0])
    x[:, 1] = torch.eye(3, 4)
    saliency = torch.tensor([[0.1, 0.3], [0.2, 0.2], [0.9, 0.5]])
    compressor = create("framefusion", 3, 2, 2)
    plan = compressor.plan(Features(x, saliency))
    assert plan.assignment.tolist() == [[0, -1], [0, -1], [0, 1]]
    assert compressor.apply(plan, x).tolist() == [[2, 0, 0, 0], [0, 0, 1, 0]]


def test_no_more_tokens_merge_than_must():
    x = torch.ones(4, 3, 2)
    plan = create("framefusion", 4, 3, 7).plan(Features(x, torch.rand(4, 3)))
    assert plan.counts().sum() == 12 and plan.counts().min() == 1
