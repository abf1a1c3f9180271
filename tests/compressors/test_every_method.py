"""What every registered method keeps to, whatever the clip: the contract of edgevtc.compressors.Compressor."""

import numpy as np
import pytest
import torch
from clips import KINDS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgevtc.compressors import Compressor, Plan, create
from edgevtc.methods import builtin_methods

pytestmark = pytest.mark.export

METHODS = sorted(builtin_methods())

#: Name → hyper-parameters.
PARAMETERS = {name: spec.parameters for name, spec in builtin_methods().items()}

# T, N, B, kind of clip.
EDGE_CASES = [
    pytest.param(1, 9, 4, "noise", id="one-frame"),
    pytest.param(1, 1, 1, "noise", id="one-token"),
    pytest.param(6, 9, 1, "scenes", id="budget-of-one"),
    pytest.param(6, 9, 5, "scenes", id="fewer-tokens-than-frames"),
    pytest.param(6, 9, 53, "scenes", id="all-but-one"),
    pytest.param(6, 9, 6, "identical", id="identical-frames"),
    pytest.param(6, 9, 40, "identical", id="more-tokens-than-distinct-ones"),
    pytest.param(5, 9, 7, "zero", id="zero-tokens"),
    pytest.param(5, 9, 7, "flat", id="constant-saliency"),
    pytest.param(5, 9, 7, "damaged", id="nan-and-inf"),
    pytest.param(2, 2, 3, "scenes", id="two-by-two"),
    pytest.param(6, 1, 4, "scenes", id="one-token-a-frame"),
    pytest.param(6, 1, 6, "scenes", id="all-of-one-token-a-frame"),
]


def program(method: str, frames: int, size: int, budget: int) -> Compressor:
    return create(method, frames, size, frames * size if method == "none" else budget).eval()


def inputs(compressor: Compressor, features: dict[str, np.ndarray]) -> list[Tensor]:
    return [torch.from_numpy(features[name]) for name in compressor.spec.needs]


def plan(compressor: Compressor, features: dict[str, np.ndarray]) -> Plan:
    return compressor.plan(compressor.features(*inputs(compressor, features)))


def examine(compressor: Compressor, features: dict[str, np.ndarray]) -> None:
    frames, size, dim = features["frame_tokens"].shape
    with torch.no_grad():
        outputs = compressor(*inputs(compressor, features))
        again = compressor(*inputs(compressor, features))
    budget, (tokens, positions, counts, assignment, *segments) = compressor.budget, outputs
    assert tokens.shape == (budget, dim) and torch.isfinite(tokens).all()
    assert positions.dtype == counts.dtype == assignment.dtype == torch.int32
    assert positions.shape == counts.shape == (budget,) and assignment.shape == (frames, size)
    assert (positions[1:] > positions[:-1]).all() and positions[0] >= 0 and positions[-1] < frames * size
    assert assignment.min() >= -1 and assignment.max() < budget
    assert torch.equal(assignment.reshape(-1)[positions.long()], torch.arange(budget, dtype=torch.int32))
    assert counts.min() >= 1 and counts.sum() == (assignment >= 0).sum()
    assert len(compressor.outputs) == len(outputs)
    assert ("segments" in compressor.outputs) == (compressor.spec.segments and budget < frames * size)
    for index in segments:
        assert index.dtype == torch.int32 and index.shape == (frames,) and index[0] == 0
        assert set((index[1:] - index[:-1]).tolist()) <= {0, 1}
    assert all(torch.equal(a, b) for a, b in zip(outputs, again, strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("frames", "size", "budget", "kind"), EDGE_CASES)
def test_edge_cases(method, frames, size, budget, kind, make_clip):
    examine(program(method, frames, size, budget), make_clip((frames, size, 8), kind))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_clip(method, data, make_clip):
    frames, size = data.draw(st.integers(1, 7), "T"), data.draw(st.integers(1, 17), "N")
    shape = (frames, size, data.draw(st.integers(1, 6), "D"))
    kind, seed = data.draw(st.sampled_from(KINDS)), data.draw(st.integers(0, 999), "seed")
    compressor = program(method, frames, size, data.draw(st.integers(1, frames * size), "B"))
    examine(compressor, make_clip(shape, kind, seed))


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_summation_decides_nothing(method, make_clip):
    """Not even in a clip without motion, where tokens differ in their last digits only."""
    compressor = program(method, 8, 36, 40)
    moved = 0
    for seed in range(8):
        features, rng = make_clip((8, 36, 64), "still", seed), np.random.default_rng(seed)
        permuted = {
            name: value if name == "saliency" else value[..., rng.permutation(value.shape[-1])]
            for name, value in features.items()
        }
        first, second = plan(compressor, features), plan(compressor, permuted)
        elsewhere = (first.assignment != second.assignment).float().mean()
        moved += not torch.equal(first.positions, second.positions) or elsewhere > 0.01
    assert moved <= 1  # there may be a tie


@pytest.mark.parametrize("method", METHODS)
def test_apply_is_linear(method, make_clip):
    compressor = program(method, 8, 16, 30)
    decided = plan(compressor, make_clip((8, 16, 12)))
    # A second stream of features may have another width, as DeepStack's levels do.
    a, b = torch.randn(2, 8, 16, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    combined = compressor.apply(decided, 2.5 * a - 3 * b)
    separate = 2.5 * compressor.apply(decided, a) - 3 * compressor.apply(decided, b)
    torch.testing.assert_close(combined, separate, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_the_whole_budget_is_the_identity(method, make_clip):
    features = make_clip((4, 9, 8))
    compressor = program(method, 4, 9, 36)
    tokens, positions, counts, _ = compressor(*inputs(compressor, features))
    np.testing.assert_array_equal(tokens, features["frame_tokens"].reshape(36, 8))
    assert positions.tolist() == list(range(36)) and counts.tolist() == [1] * 36


@pytest.mark.parametrize("method", [name for name, spec in builtin_methods().items() if spec.segments])
def test_a_cut_that_cannot_be_missed_begins_a_segment(method, make_clip):
    features = make_clip((8, 9, 16), "identical")
    features["frame_tokens"][4:] *= -1
    features["frame_features"][4:] *= -1
    compressor = create(method, 8, 9, 20, **({"min_segments": 1} if "min_segments" in PARAMETERS[method] else {}))
    *_, segments = compressor(*inputs(compressor, features))
    assert segments.tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("method", METHODS)
def test_damaged_tokens_count_as_zeros(method, make_clip):
    features = make_clip((6, 9, 8))
    repaired = {name: value.copy() for name, value in features.items()}
    # The same positions in all frames, because HoliTom merges none that is damaged somewhere.
    for damage, position in enumerate([1, 2, 3, 5, 7]):
        features["frame_tokens"][:, position, position] = [np.nan, np.inf, -np.inf, 1e9, -7e4][damage]
        repaired["frame_tokens"][:, position] = 0
    compressor = program(method, 6, 9, 20)
    for ours, expected in zip(
        compressor(*inputs(compressor, features)), compressor(*inputs(compressor, repaired)), strict=True
    ):
        assert torch.equal(ours, expected)
