from __future__ import annotations

import numpy as np
import pytest

from edgevtc.exporter import quantize
from edgevtc.exporter.quantize import block_length, dequantize_blocks, quantize_blocks, quantize_rows

pytestmark = pytest.mark.export


def random_weight(rows: int, columns: int) -> np.ndarray:
    weight = np.random.default_rng(0).standard_normal((rows, columns), dtype=np.float32)
    weight[rows // 2] = 0
    weight[0, 0] = 9
    return weight


@pytest.mark.parametrize(
    ("columns", "longest", "block"),
    [
        (4864, 128, 128),
        (192, 128, 64),
        (352, 128, 32),
        (192, 32, 32),
        (192, 16, 16),
        (512, 256, 256),
        (300, 128, 32),
        (75, 16, 16),
    ],
)
def test_block_is_the_longest_that_divides(columns: int, longest: int, block: int) -> None:
    assert block_length(columns, longest) == block


@pytest.mark.parametrize("columns", [64, 96, 75])
@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_are_within_half_a_step(bits: int, block: int, columns: int) -> None:
    weight = random_weight(10, columns)
    codes, scales = quantize_blocks(weight, bits, block)
    blocks = -(-columns // block)
    assert (codes.shape, codes.dtype) == ((10, blocks, block * bits // 8), np.uint8)
    assert (scales.shape, scales.dtype) == ((10, blocks), np.float32)

    restored = dequantize_blocks(codes, scales, bits, columns)
    step = np.repeat(scales, block, axis=1)[:, :columns]
    # The one value that has no code is the negative of the largest: it takes the next one, a whole step away.
    beyond = weight / step > 2 ** (bits - 1) - 1
    assert (np.abs(restored - weight) <= np.where(beyond, 1, 0.5) * np.abs(step) * 1.001).all()
    assert beyond.mean() < 0.05


def test_largest_weight_of_a_block_is_exact_whatever_its_sign() -> None:
    weight = np.array([[0.8, -0.1] * 8, [-0.8, 0.1] * 8, [0.0, 0.0] * 8], np.float32)
    codes, scales = quantize_blocks(weight, 4, 16)
    np.testing.assert_allclose(dequantize_blocks(codes, scales, 4, 16), weight, atol=1e-6)


def test_four_bit_codes_have_the_even_column_in_the_low_nibble() -> None:
    weight = np.tile(np.array([[-8, 7, 1, 0]], np.float32), 4)
    codes, _ = quantize_blocks(weight, 4, 16)
    assert codes[0, 0, :2].tolist() == [0xF0, 0x89]


def test_a_block_does_not_see_the_next() -> None:
    weight = random_weight(4, 64)
    louder = weight.copy()
    louder[:, 32:] *= 50
    np.testing.assert_array_equal(quantize_blocks(weight, 8, 32)[0][:, 0], quantize_blocks(louder, 8, 32)[0][:, 0])


@pytest.mark.parametrize("largest", [64, 127])
def test_rows_are_within_half_a_step_and_the_bound(largest: int) -> None:
    weight = random_weight(10, 75)
    codes, scales = quantize_rows(weight, largest)
    assert (codes.shape, codes.dtype, scales.shape, scales.dtype) == ((10, 75), np.int8, (10,), np.float32)
    assert np.abs(codes).max() == largest
    assert (np.abs(codes * scales[:, None] - weight) <= scales[:, None] / 2 * 1.001).all()


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random_weight(10, 64).astype(np.float16)
    whole = (*quantize_blocks(weight, 4, 32), *quantize_rows(weight, 127))
    monkeypatch.setattr(quantize, "SLAB_ROWS", 3)
    for cut, expected in zip((*quantize_blocks(weight, 4, 32), *quantize_rows(weight, 127)), whole, strict=True):
        np.testing.assert_array_equal(cut, expected)
