"""Anchors and what merges into them."""

import pytest
import torch

from edgevtc.compressors.blocks.dtm import anchors_per_frame, merge_matrix, nearest_anchors, pick_anchors
from edgevtc.compressors.blocks.segments import segments_from_start

pytestmark = pytest.mark.export


def segments(*lengths: int):
    return segments_from_start(torch.tensor([float(i == 0) for n in lengths for i in range(n)]))


@pytest.mark.parametrize(
    ("lengths", "budgets", "interval", "expected"),
    [
        pytest.param([5], [4], 4, [2, 0, 0, 0, 2], id="counted from the last frame"),
        pytest.param([5], [5], 4, [2, 0, 0, 0, 3], id="remainder to the latest"),
        pytest.param([6], [5], 2, [0, 1, 0, 2, 0, 2], id="three anchor frames"),
        pytest.param([1, 3], [2, 4], 2, [2, 2, 0, 2], id="two segments"),
        pytest.param([4], [1], 1, [0, 0, 0, 1], id="fewer anchors than frames"),
        pytest.param([3], [0], 2, [0, 0, 0], id="none"),
    ],
)
def test_anchors_per_frame(lengths, budgets, interval, expected):
    budget = torch.tensor([float(b) for n, b in zip(lengths, budgets, strict=True) for _ in range(n)])
    assert anchors_per_frame(budget, segments(*lengths), interval).tolist() == expected


def positions(mask: torch.Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in mask]


SCORE = torch.tensor([[5.0, 4.0, 3.0, 9.0], [5.0, 4.0, 3.0, 9.0], [5.0, 4.0, 3.0, 9.0]])
VALID = torch.tensor([True, True, True, False]).expand(3, 4)
STATIC = torch.tensor([True, True, False, True]).expand(3, 4)


@pytest.mark.parametrize(
    ("lengths", "static", "counts", "expected"),
    [
        pytest.param([3], None, [1, 1, 2], [[0], [0], [0, 1]], id="no mask"),
        pytest.param([3], STATIC, [1, 1, 1], [[0], [1], [2]], id="each static position once"),
        pytest.param([3], STATIC, [1, 0, 1], [[0], [], [1]], id="a frame without anchors"),
        pytest.param([1, 2], STATIC, [1, 1, 1], [[0], [0], [1]], id="a new segment forgets"),
        pytest.param([3], STATIC, [2, 2, 3], [[0, 1], [0, 2], [0, 1, 2]], id="masked ones fill up, best first"),
    ],
)
def test_pick_anchors(lengths, static, counts, expected):
    anchors = pick_anchors(SCORE, VALID, torch.tensor(counts).float(), segments(*lengths), static)
    assert positions(anchors) == expected


# Two frames of three tokens in a plane; the first token of each frame is an anchor, and so is the last of all.
X = torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.2, 0.8]], [[0.0, 2.0], [5.0, 1.0], [3.0, 3.0]]])
ANCHORS = torch.tensor([[True, False, False], [True, False, True]])
POOL = torch.ones(2, 3, dtype=torch.bool)


def test_each_token_merges_once_in_scope_segment():
    index, nearest, absorbs = nearest_anchors(X, ANCHORS, POOL, segments(2), 3)
    assert index.tolist() == [0, 3, 5]
    assert nearest.tolist() == [0, 0, 1, 1, 0, 2]
    assert positions(absorbs) == [[1, 4], [2], []]


def test_members_all_includes_the_anchor_itself():
    _, _, absorbs = nearest_anchors(X, ANCHORS, POOL, segments(2), 3, members="all")
    assert positions(absorbs) == [[0, 1, 4], [2, 3], [5]]


def test_each_anchor_frame_absorbs_the_segment_anew():
    _, _, absorbs = nearest_anchors(X, ANCHORS, POOL, segments(2), 3, "anchor_frame")
    assert positions(absorbs) == [[1, 2, 3, 4, 5], [2], [0, 1, 4]]
    _, _, absorbs = nearest_anchors(X, ANCHORS, POOL, segments(2), 3, "anchor_frame", "all")
    assert positions(absorbs) == [[0, 1, 2, 3, 4, 5], [2, 3], [0, 1, 4, 5]]


def test_segments_and_pool_bound_the_search():
    pool = POOL.clone()
    pool[1, 1] = False
    _, nearest, _ = nearest_anchors(X, ANCHORS, pool, segments(1, 1), 3)
    assert nearest.tolist() == [0, 0, 0, 1, -1, 2]


def test_equal_similarity_goes_to_the_lower_anchor():
    x = torch.ones(1, 4, 3)
    anchors = torch.tensor([[False, True, True, False]])
    _, nearest, _ = nearest_anchors(x, anchors, torch.ones(1, 4, dtype=torch.bool), segments(1), 2)
    assert nearest.tolist() == [0, 0, 1, 0]


def test_nearly_equal_anchors_are_told_apart():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, generator=generator) + 1e-3 * torch.randn(4, 60, 64, generator=generator)
    anchors = torch.zeros(4, 60, dtype=torch.bool)
    anchors[:, ::12] = True
    index, nearest, _ = nearest_anchors(x, anchors, torch.ones_like(anchors), segments(4), 20)
    flat = x.double().reshape(240, 64)
    cosine = torch.nn.functional.normalize(flat[index.long()], dim=1) @ torch.nn.functional.normalize(flat, dim=1).T
    found = cosine.gather(0, nearest.long()[None])[0]
    # One rounding of an anchor's length remains; products of whole tokens would be off by three or four.
    assert (cosine.amax(0) - found)[~anchors.flatten()].max() < 1.2e-7


@pytest.mark.parametrize("adaptive", [True, False])
def test_merge_weights(adaptive):
    index = torch.tensor([0, 3], dtype=torch.int32)
    absorbs = torch.tensor([[False, True, True, False, False], [False, False, False, False, True]])
    expected = torch.tensor([[0.6, 0.2, 0.2, 0, 0], [0, 0, 0, 0.6, 0.4]])
    torch.testing.assert_close(merge_matrix(index, absorbs, 0.6, adaptive), expected)


def test_adaptive_weight_never_counts_an_anchor_less_than_a_member():
    index = torch.tensor([0], dtype=torch.int32)
    absorbs = torch.tensor([[False, True]])
    assert merge_matrix(index, absorbs, 0.2, adaptive=True).tolist() == [[0.5, 0.5]]
    torch.testing.assert_close(merge_matrix(index, absorbs, 0.2, adaptive=False), torch.tensor([[0.2, 0.8]]))


def test_an_anchor_that_absorbs_nothing_stays():
    index = torch.tensor([1], dtype=torch.int32)
    assert merge_matrix(index, torch.zeros(1, 3, dtype=torch.bool), 0.6, True).tolist() == [[0, 1, 0]]
