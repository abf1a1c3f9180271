"""Differences and decisions, on arrays small enough to see."""

from dataclasses import asdict

import numpy as np
import pytest

from edgevtc.errors import BundleError
from edgevtc.measure.compare import compare_decisions, difference
from edgevtc.measure.references import MethodReference, References


def test_a_difference_is_relative_to_the_largest_value():
    found = difference(np.array([1.0, -3.0]), np.array([1.0, -4.0]))
    assert (found.worst, found.mean) == (0.25, 0.125)
    assert found.cosine == pytest.approx(13 / (10 * 17) ** 0.5)


@pytest.mark.parametrize(
    ("actual", "expected", "worst"),
    [
        ([np.nan, 1.0], [1.0, 1.0], np.inf),  # a comparison with NaN must not pass by being false
        ([1.0], [1.0, 1.0], np.inf),
        ([0.0], [0.0], 0.0),
        ([], [], 0.0),
    ],
)
def test_edges(actual, expected, worst):
    assert difference(np.array(actual), np.array(expected)).worst == worst


def test_decisions_are_compared_by_position_not_by_slot():
    # Six inputs: 0 and 1 merge at 0, 2 stays, 3 and 4 merge at 4, 5 is dropped.
    expected = np.array([0, 2, 4]), np.array([[0, 0, 1], [2, 2, -1]])
    same = compare_decisions(*expected, *expected)
    assert (same.overlap, same.agreement, same.slots.tolist()) == (1.0, 1.0, [0, 1, 2])
    # Position 1 instead of 2, and 2 into the slot at 4: slots 0 and 1 are lost, the one at 4 has another input.
    other = compare_decisions(np.array([0, 1, 4]), np.array([[0, 1, 2], [2, 2, -1]]), *expected)
    assert other.overlap == pytest.approx(2 / 3) and other.agreement == pytest.approx(4 / 6)
    assert other.slots.tolist() == other.expected_slots.tolist() == []


def test_references_come_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    method = MethodReference(
        np.arange(3, dtype=np.int32), np.zeros((2, 4), np.int32), rng.random((3, 4)), rng.random((4, 2)), rng.random(4)
    )
    written = References(
        frames=rng.integers(0, 255, (2, 4, 4, 3)).astype(np.uint8),
        features={"frame_tokens": rng.random((2, 4, 8)), "saliency": rng.random((2, 4))},
        projection=rng.random((8, 4)),
        methods={"uniform-b3": method},
        prompt_ids=np.array([1, 2], np.int32),
        prompt_embeddings=rng.random((2, 4)),
        logits=rng.random(9),
    )
    (tmp_path / "references.npz").write_bytes(written.to_bytes())
    assert written.to_bytes() == written.to_bytes()
    np.testing.assert_equal(asdict(References.read(tmp_path / "references.npz")), asdict(written))
    (tmp_path / "references.npz").write_bytes(written.to_bytes()[:-200])
    with pytest.raises(BundleError, match="no reference file"):
        References.read(tmp_path / "references.npz")
    for damaged in (b"x", b"\x80\x04N."):  # what numpy takes for a pickle, and says how to load
        (tmp_path / "references.npz").write_bytes(damaged)
        with pytest.raises(BundleError, match="no reference file: export or copy") as error:
            References.read(tmp_path / "references.npz")
        assert "pickle" not in str(error.value)
