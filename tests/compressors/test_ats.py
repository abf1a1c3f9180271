"""Salient tokens and the penalty on static positions."""

import pytest
import torch

from edgevtc.compressors.blocks.ats import UNKNOWN, penalized_salient_tokens, saliency_deviation, salient_tokens
from edgevtc.compressors.blocks.segments import segments_from_start

pytestmark = pytest.mark.export

SALIENCY = torch.tensor([[9.0, 8.0, 1.0, 0.0], [9.0, 8.0, 7.0, 0.0], [9.0, 8.0, 1.0, 0.0]])
ONE_SEGMENT = segments_from_start(torch.tensor([1.0, 0.0, 0.0]))
FIRST_STATIC = torch.tensor([[True, False, False, False]]).expand(3, 4)


def positions(mask: torch.Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in mask]


def test_largest_of_each_frame_ties_to_the_lower_index():
    assert positions(salient_tokens(torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]]), [2, 2])) == [[1, 2], [0, 1]]


def test_a_frame_without_a_share_has_none_and_forgets_nothing():
    salient, taken = penalized_salient_tokens(SALIENCY, [1, 0, 1], ONE_SEGMENT, FIRST_STATIC, penalty=12)
    assert positions(salient) == [[0], [], [1]]
    assert positions(taken) == [[0], [0], [0]]
    assert positions(salient_tokens(SALIENCY, [2, 0, 1])) == [[0, 1], [], [0]]


def test_a_static_position_is_passed_over_once_taken():
    salient, taken = penalized_salient_tokens(SALIENCY, [2] * 3, ONE_SEGMENT, FIRST_STATIC, penalty=12)
    assert positions(salient) == [[0, 1], [1, 2], [1, 2]]
    assert positions(taken) == [[0], [0], [0]]


def test_a_small_penalty_lets_it_come_back():
    # Standard deviations 4.65, 4.08, 4.65: the position falls to 5.9 in frame 1, below 7, and to 5.4 in frame 2.
    salient, _ = penalized_salient_tokens(SALIENCY, [2] * 3, ONE_SEGMENT, FIRST_STATIC, penalty=0.77)
    assert positions(salient) == [[0, 1], [1, 2], [0, 1]]


def test_a_new_segment_forgets():
    segments = segments_from_start(torch.tensor([1.0, 1.0, 0.0]))
    salient, taken = penalized_salient_tokens(SALIENCY, [1] * 3, segments, FIRST_STATIC, penalty=12)
    assert positions(salient) == [[0], [0], [1]]
    assert positions(taken) == [[0], [0], [0]]


def test_taken_holds_for_later_frames_only():
    saliency = SALIENCY.clone()
    saliency[0, 0] = 0.5
    salient, taken = penalized_salient_tokens(saliency, [1] * 3, ONE_SEGMENT, FIRST_STATIC, penalty=12)
    assert positions(salient) == [[1], [0], [1]]
    assert positions(taken) == [[], [0], [0]]


def test_no_penalty_is_the_plain_choice():
    saliency = torch.rand(6, 12, generator=torch.Generator().manual_seed(0))
    segments = segments_from_start(torch.tensor([1.0, 0, 0, 1, 0, 0]))
    salient, _ = penalized_salient_tokens(saliency, [4] * 6, segments, saliency > 0.5, penalty=0)
    assert torch.equal(salient, salient_tokens(saliency, [4] * 6))


def test_constant_saliency_moves_on_from_static_positions():
    salient, _ = penalized_salient_tokens(torch.ones(3, 4), [1] * 3, ONE_SEGMENT, FIRST_STATIC, penalty=12)
    assert positions(salient) == [[0], [1], [1]]


def test_unknown_saliency_comes_last_even_after_penalties():
    saliency = SALIENCY.clone()
    saliency[:, 3] = UNKNOWN
    saliency[2, 2] = torch.inf
    salient, _ = penalized_salient_tokens(saliency, [3] * 3, ONE_SEGMENT, FIRST_STATIC, penalty=1000)
    assert positions(salient) == [[0, 1, 2]] * 3


@pytest.mark.parametrize(("unbiased", "expected"), [(True, 1.0), (False, (2 / 3) ** 0.5)])
def test_deviation_ignores_unknown_values(unbiased, expected):
    assert saliency_deviation(torch.tensor([[1.0, 2.0, 3.0, UNKNOWN]]), unbiased).item() == pytest.approx(expected)
