"""Output slots, and what each frame does for itself, against plain loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevtc.compressors.blocks.frames import (
    change_since,
    even_shares,
    even_steps,
    folded_by_frame,
    frame_products,
    reference_cosine,
    squared_lengths,
    unit,
)
from edgevtc.compressors.blocks.slots import folded, merge_into_rows, raster_slots

pytestmark = pytest.mark.export

quick = settings(max_examples=40, deadline=None, derandomize=True)


@quick
@given(kept=st.lists(st.booleans(), min_size=6, max_size=6).filter(any), data=st.data())
def test_raster_slots(kept, data):
    positions = [i for i, keep in enumerate(kept) if keep]
    into = data.draw(st.lists(st.sampled_from([-1, *positions]), min_size=6, max_size=6))
    mask = torch.tensor(kept).reshape(2, 3)
    found, slot = raster_slots(mask, torch.tensor(into, dtype=torch.int32).reshape(2, 3), len(positions))
    expected = [positions.index(i) if kept[i] else positions.index(t) if t >= 0 else -1 for i, t in enumerate(into)]
    assert found.dtype == slot.dtype == torch.int32
    assert found.tolist() == positions and slot.reshape(-1).tolist() == expected
    _, alone = raster_slots(mask, None, len(positions))
    assert alone.reshape(-1).tolist() == [positions.index(i) if kept[i] else -1 for i in range(6)]


def plain_sums(x, assignment, weight, budget):
    """Σ weight·x of each slot."""
    sums = torch.zeros(budget, x.shape[-1], dtype=x.dtype)
    for t, n in (assignment >= 0).nonzero().tolist():
        sums[assignment[t, n]] += weight[t, n] * x[t, n]
    return sums


def test_folded():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 4, 5, generator=generator), torch.rand(3, 4, generator=generator)
    assignment = torch.tensor([[0, 0, -1, 1], [1, 2, 2, 2], [-1, 0, 4, -1]], dtype=torch.int32)
    # Nothing goes to slot 3.
    torch.testing.assert_close(folded(x, assignment, weight, 5), plain_sums(x, assignment, weight, 5))


@pytest.mark.parametrize("shares", [[2, 2, 2], [1, 3, 0]])
def test_folded_by_frame(shares):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 4, 5, generator=generator), torch.rand(3, 4, generator=generator)
    assignment = torch.full((3, 4), -1, dtype=torch.int32)
    first = 0
    for t, share in enumerate(shares):
        for n in range(4 if share else 0):
            assignment[t, n] = first + n % share
        first += share
    expected = plain_sums(x, assignment, weight, sum(shares))
    torch.testing.assert_close(folded_by_frame(x, assignment, weight, shares), expected)


def test_merge_into_rows():
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([0, 2, 3, 5], dtype=torch.int32)
    merge = torch.zeros(2, 6)
    merge[0, [2, 1]] = torch.tensor([0.75, 0.25])
    merge[1, 4] = 1
    rows = merge_into_rows(x, positions, merge, torch.tensor([False, True, False, True]))
    flat = x.reshape(6, 4)
    torch.testing.assert_close(rows, torch.stack([flat[0], 0.75 * flat[2] + 0.25 * flat[1], flat[3], flat[4]]))


@quick
@given(total=st.integers(0, 300), frames=st.integers(1, 40))
def test_even_shares(total, frames):
    shares = even_shares(total, frames)
    assert len(shares) == frames and sum(shares) == total and max(shares) - min(shares) <= 1
    # Any run of frames has its share to within a token.
    assert all(abs(sum(shares[:t]) - total * t / frames) < 1 for t in range(frames))


@quick
@given(size=st.integers(1, 60), data=st.data())
def test_even_steps(size, data):
    count = data.draw(st.integers(1, size))
    steps = even_steps(size, count)
    assert len(set(steps)) == count and steps == sorted(steps) and all(0 <= step < size for step in steps)
    assert all(abs(step + 0.5 - (i + 0.5) * size / count) <= 0.5 for i, step in enumerate(steps))
    assert even_steps(size, count, start=0)[0] == 0


def test_cosines_with_a_reference_frame():
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    x[1, 2] = 0  # A zero token resembles nothing, not even itself.
    products, reference = frame_products(x), [0, 0, 1]
    expected = torch.stack([(unit(x[t]) * unit(x[r])).sum(-1) for t, r in enumerate(reference)])
    torch.testing.assert_close(squared_lengths(products, 3), x.square().sum(-1).T)
    torch.testing.assert_close(reference_cosine(products, reference), expected)
    torch.testing.assert_close(change_since(x, reference)[1:], 1 - expected[1:])
    assert (change_since(x, reference)[0] == 0).all()
    assert change_since(x, [0, 1, 2])[1].tolist() == [0, 0, 1, 0]
    x = x[:1] + 1e-4 * torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1))
    units = torch.nn.functional.normalize(x.double(), dim=-1)
    expected = (units - units[reference]).square().sum(-1) / 2
    torch.testing.assert_close(change_since(x, reference).double(), expected, rtol=1e-2, atol=1e-12)


def test_unit():
    rows = unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
