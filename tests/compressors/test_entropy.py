"""The entropy blocks against eigenvalues and singular values from LAPACK."""

import numpy as np
import pytest
import torch

from edgevtc.compressors.blocks.entropy import RICHNESS_MODES, richness, trace_entropy
from edgevtc.compressors.blocks.segments import segments_from_start
from edgevtc.compressors.infomerge import segment_merit, standardize

pytestmark = pytest.mark.export


def gram(eigenvalues: np.ndarray, seed: int = 0) -> torch.Tensor:
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(eigenvalues),) * 2))[0]
    return torch.from_numpy((basis * eigenvalues) @ basis.T).float()


def exact_entropy(tokens: np.ndarray) -> float:
    """Normalised spectral entropy of [len, N, D] tokens."""
    values = np.linalg.svd(tokens.reshape(-1, tokens.shape[-1]).astype(np.float64), compute_uv=False) ** 2
    share = values[values > 0] / values.sum()
    return float(-(share * np.log(share)).sum() / np.log(min(tokens.shape[0] * tokens.shape[1], tokens.shape[2])))


def decaying(lengths: list[int], size: int, dim: int, decay: list[float]) -> np.ndarray:
    """Tokens whose spectrum falls as a power law, with another exponent in each segment."""
    rng = np.random.default_rng(1)
    scale = [np.arange(1, dim + 1) ** -power for power in decay]
    mixing = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    parts = [rng.standard_normal((n, size, dim)) * s @ mixing for n, s in zip(lengths, scale, strict=True)]
    return np.concatenate(parts).astype(np.float32)


def segments(lengths: list[int]):
    return segments_from_start(torch.tensor([float(i == 0) for n in lengths for i in range(n)]))


@pytest.mark.parametrize(
    "eigenvalues",
    [
        pytest.param(np.ones(8) / 8, id="flat"),
        pytest.param(np.eye(16)[3], id="one direction"),
        pytest.param(np.zeros(16), id="nothing"),
        pytest.param(np.exp(-2.0 * np.arange(16)) * (1 - np.exp(-2.0)), id="steep"),
        pytest.param(np.exp(-0.3 * np.arange(64)) * (1 - np.exp(-0.3)), id="64 wide"),
        pytest.param(np.array([1 - 1e-6, 1e-6]), id="almost one direction"),
    ],
)
def test_trace_entropy(eigenvalues):
    positive = eigenvalues[eigenvalues > 0]
    exact = -(positive * np.log(positive)).sum()
    assert abs(float(trace_entropy(gram(eigenvalues))) - exact) < 4e-6 * len(eigenvalues)


def test_trace_entropy_at_every_scale():
    values = torch.cat([torch.logspace(-12, 0, 500), torch.linspace(0, 1, 500)])
    exact = -torch.xlogy(values.double(), values.double())
    assert (trace_entropy(values[:, None, None]) - exact).abs().max() < 5e-6


@pytest.mark.parametrize("mode", ["spectral", "sketch64"])
def test_exact_where_the_directions_are_complete(mode):
    lengths, tokens = [1, 4, 2], np.random.default_rng(0).standard_normal((7, 9, 12)).astype(np.float32)
    found = richness(torch.from_numpy(tokens), segments(lengths), mode)
    exact = [exact_entropy(part) for part in np.split(tokens, [1, 5])]
    np.testing.assert_allclose(found, np.repeat(exact, lengths), atol=1e-4)


def test_spectral_orders_segments_as_the_exact_entropy_does():
    """Budgets are made from z-scores, so those are held to the exact ones."""
    lengths, decay = [4, 8, 3, 6, 3], [0.3, 0.5, 0.7, 0.9, 1.1]
    tokens = decaying(lengths, 64, 192, decay)
    found = richness(torch.from_numpy(tokens), segments(lengths))[np.cumsum(lengths) - 1].numpy()
    exact = np.array([exact_entropy(part) for part in np.split(tokens, np.cumsum(lengths)[:-1])])
    z_found, z_exact = ((values - values.mean()) / values.std() for values in (found, exact))
    assert abs(z_found - z_exact).max() < 0.1


@pytest.mark.parametrize("dim", [64, 128, 192])
def test_spectral_shares_budgets_as_the_exact_entropy_does(dim):
    """Power-law spectra, segments of two frames and more: 0.34 token is the most in 60 clips of each width."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        count = int(rng.integers(3, 9))
        lengths = (2 + rng.multinomial(24 - 2 * count, [1 / count] * count)).tolist()
        tokens = decaying(lengths, 64, dim, rng.uniform(0.2, 1.2, count).tolist())
        exact = [exact_entropy(part) for part in np.split(tokens, np.cumsum(lengths)[:-1])]
        x, runs = torch.from_numpy(tokens), segments(lengths)
        uniqueness = segment_merit(x, runs, 0.9, 0.0)
        merits = (
            segment_merit(x, runs, 0.9, 0.1),
            uniqueness + 0.1 * standardize(torch.from_numpy(np.repeat(exact, lengths)).float(), runs),
        )
        weights = [torch.sigmoid(1.2 * merit) for merit in merits]
        found, expected = (188 * runs.segment_sum(w) / w.sum() for w in weights)
        assert (found - expected).abs().max() <= 0.5
        assert (found - 188 * runs.length / 24).abs().max() > 5  # the merits do move budgets


@pytest.mark.parametrize("mode", RICHNESS_MODES)
def test_richer_segments_score_higher(mode):
    lengths = [5, 5, 5]
    values = richness(torch.from_numpy(decaying(lengths, 40, 128, [0.2, 0.8, 1.6])), segments(lengths), mode)
    assert values[0] > values[5] > values[10] > 0
    assert all(part.max() - part.min() < 1e-5 for part in values.split(5))
    assert values.max() <= 1


def test_renyi2_is_the_collision_entropy_where_the_directions_are_complete():
    tokens = torch.randn(3, 9, 10, generator=torch.Generator().manual_seed(0))
    share = torch.linalg.svdvals(tokens.reshape(-1, 10)) ** 2
    share = share / share.sum()
    exact = -torch.log((share**2).sum()) / np.log(10)
    np.testing.assert_allclose(richness(tokens, segments([3]), "renyi2"), exact.expand(3), atol=1e-5)


@pytest.mark.parametrize("mode", RICHNESS_MODES)
@pytest.mark.parametrize("dim", [3, 40, 100])
def test_zero_and_single_direction_segments_have_no_richness(mode, dim):
    tokens = torch.zeros(4, 6, dim)
    tokens[2:] = torch.linspace(1, 2, dim)
    values = richness(tokens, segments([2, 2]), mode)
    np.testing.assert_allclose(values, np.zeros(4), atol=2e-5)


@pytest.mark.parametrize("mode", RICHNESS_MODES)
def test_scale_does_not_matter(mode):
    tokens = torch.from_numpy(decaying([2, 3], 20, 80, [0.4, 0.8]))
    small, large = (richness(tokens * scale, segments([2, 3]), mode) for scale in (1e-3, 1e4))
    np.testing.assert_allclose(small, large, atol=1e-4)
