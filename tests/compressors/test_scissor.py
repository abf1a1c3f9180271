"""LLaVA-Scissor against what the published code made of synthetic videos, and what is its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create
from edgevtc.compressors.scissor import component_centres, connected_components

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("scissor_*.npz"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return dict(np.load(request.param))


def graph(tokens: torch.Tensor, threshold: float) -> torch.Tensor:
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    return unit @ unit.transpose(1, 2) > threshold


def test_the_vectors_are_there():
    assert len(FILES) == 6


def test_published_components_of_frames(golden):
    x = torch.from_numpy(golden["tokens"])
    connected = graph(x, float(golden["tau"]))
    label = connected_components(connected)
    theirs = torch.from_numpy(golden["frame_component"])
    assert torch.equal(label[:, :, None] == label[:, None, :], theirs[:, :, None] == theirs[:, None, :])
    # Components are ordered by their centres.
    centre = component_centres(connected, label)
    for ours, published, count in zip(centre, theirs, golden["frame_component_count"], strict=True):
        assert torch.equal(torch.searchsorted(ours.unique(), ours), published)
        assert len(ours.unique()) == count


def test_published_tokens(golden):
    x = torch.from_numpy(golden["tokens"])
    frames, size, _ = x.shape
    compressor = create("scissor", frames, size, len(golden["counts"]), threshold=golden["tau"].item())
    plan = compressor.plan(Features(x))
    np.testing.assert_allclose(compressor.apply(plan, x), golden["tokens_out"], rtol=0, atol=1e-5)
    elsewhere = torch.ones(frames * size, dtype=torch.bool)
    elsewhere[plan.positions.long()] = False
    closest = torch.from_numpy(golden["closest"])[elsewhere]
    assert torch.equal(plan.assignment.reshape(-1)[elsewhere].long(), closest)


def test_components_of_random_graphs():
    rng = np.random.default_rng(0)
    for size, edges in ((40, 30), (40, 60), (196, 190)):
        connected = np.zeros((3, size, size), dtype=bool)
        for number in range(3):
            a, b = rng.integers(0, size, (2, edges))
            connected[number, a, b] = connected[number, b, a] = True
        label = connected_components(torch.from_numpy(connected)).numpy()
        for number in range(3):
            # Walk from each node by brute force.
            reach = connected[number] | np.eye(size, dtype=bool)
            for _ in range(size.bit_length()):
                reach = (reach.astype(int) @ reach) > 0
            assert (label[number] == reach.argmax(1)).all()


def test_a_long_chain_is_one_component():
    order = torch.from_numpy(np.random.default_rng(0).permutation(196))
    connected = torch.zeros(1, 196, 196, dtype=torch.bool)
    connected[0, order[1:], order[:-1]] = connected[0, order[:-1], order[1:]] = True
    assert (connected_components(connected) == 0).all()


def two_kinds() -> torch.Tensor:
    """[3, 4, 4]: in each frame three tokens of one direction, and one of another; but for one stray."""
    x = torch.zeros(3, 4, 4)
    x[:, :3, 0] = 1
    x[:, 3, 1] = 1
    x[2, 3] = torch.tensor([0.0, 0, 0, 1])
    return x


def test_the_largest_components_stay():
    plan = create("scissor", 3, 4, 2).plan(Features(two_kinds()))
    assert plan.positions.tolist() == [0, 3]
    assert plan.counts().sum() == 12


def test_components_of_frames_fill_the_budget():
    plan = create("scissor", 3, 4, 5).plan(Features(two_kinds()))
    # Three components over the clip, then two of the largest of single frames.
    assert plan.positions.tolist() == [0, 3, 4, 8, 11]


def test_weights_sum_to_one(make_clip):
    features = Features(torch.from_numpy(make_clip((9, 16, 8))["frame_tokens"]))
    for budget in (1, 7, 40, 143):
        compressor = create("scissor", 9, 16, budget)
        out = compressor.apply(compressor.plan(features), torch.ones(9, 16, 2))
        torch.testing.assert_close(out, torch.ones(budget, 2))
