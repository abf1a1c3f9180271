"""Segmentation of frames by descriptors."""

import pytest
import torch

from edgevtc.compressors.blocks.dyseg import dyseg, neighbour_change

pytestmark = pytest.mark.export


def on_circle(*degrees: float) -> torch.Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1)


@pytest.mark.parametrize(
    ("features", "min_segments", "threshold", "starts"),
    [
        pytest.param(on_circle(0, 1, 2, 60, 61), 1, 0.9, [0, 3], id="threshold alone"),
        pytest.param(on_circle(0, 1, 3, 6, 7), 3, 0.9, [0, 2, 3], id="least similar"),
        pytest.param(on_circle(0, 1, 3, 60, 61), 2, 0.9, [0, 3], id="both name the same cut"),
        pytest.param(on_circle(0, 0, 0, 0, 0), 3, 0.9, [0, 1, 2], id="ties to the lower frame"),
        pytest.param(on_circle(0, 5, 10), 8, -1.0, [0, 1, 2], id="more segments than frames"),
        pytest.param(on_circle(30), 8, 0.9, [0], id="one frame"),
        pytest.param(on_circle(0, 10, 20) * 1e4, 1, 0.9, [0], id="any scale"),
    ],
)
def test_cuts(features, min_segments, threshold, starts):
    segments = dyseg(features, min_segments, threshold)
    assert segments.start.nonzero().flatten().tolist() == starts


def test_the_threshold_itself_is_no_cut():
    features = on_circle(0, 60)
    assert float(neighbour_change(features)) == 0.5
    assert dyseg(features, 1, 0.5).count == 1
    assert dyseg(features, 1, 0.5 + 1e-6).count == 2


def test_a_clip_without_motion_is_cut_where_it_changes_most():
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(16, 64, generator=generator) * torch.rand(16, 1, generator=generator)
    features = torch.randn(64, generator=generator) + 1e-4 * steps
    directions = torch.nn.functional.normalize(features.double(), dim=1)
    change = (directions[1:] - directions[:-1]).square().sum(1)
    expected = [0, *sorted((change.sort(descending=True).indices[:7] + 1).tolist())]
    assert dyseg(features, 8, 0.9).start.nonzero().flatten().tolist() == expected


def test_a_zero_descriptor_resembles_nothing():
    features = on_circle(0, 0, 0)
    features[1] = 0
    assert neighbour_change(features).tolist() == [1, 1]
