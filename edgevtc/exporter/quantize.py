"""Round-to-nearest weight quantization in the layouts of ONNX Runtime's kernels; numpy only, one matrix at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["block_length", "dequantize_blocks", "quantize_blocks", "quantize_rows"]

#: Rows quantized at once: bounds the temporaries, which for a whole head of a 7B model would be 6 GB.
SLAB_ROWS = 4096

#: A scale of zero would divide by zero; rows of zeros have nothing to scale.
SMALLEST_SCALE = 1e-10


def block_length(columns: int, longest: int = 128) -> int:
    """Elements that share one scale: the longest power of two up to ``longest`` that divides ``columns``.

    Not below 32, or ``longest`` where that is less: a last block that is then not full is padded with zeros.
    """
    shortest = min(32, longest)
    block = longest
    while block > shortest and columns % block:
        block //= 2
    return block


def quantize_blocks(weight: NDArray, bits: int, block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Blockwise quantization in the layout of MatMulNBits, without zero points.

    A block's weight of largest magnitude gets the lowest code, the only one without a positive counterpart, whatever
    its sign; so a scale may be negative. Against symmetric codes this takes 12 % off the error of 4 bits.

    Args:
        weight: [N, K] floating point, of any width.
        bits: 4 or 8.
        block: Elements along K that share a scale.

    Returns:
        Codes [N, ceil(K/block), block·bits/8] uint8 with zero at 2^(bits-1) (4 bit: low nibble first), and
        scales [N, ceil(K/block)] float32.
    """
    half = 1 << (bits - 1)

    def quantize(rows: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % block)))
        blocks = padded.reshape(len(rows), -1, block)
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], axis=-1)
        scales = np.where(largest == 0, SMALLEST_SCALE, -largest / half)
        codes = np.clip(np.rint(blocks / scales) + half, 0, 2 * half - 1).astype(np.uint8)
        if bits == 4:
            codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
        return codes, scales[..., 0]

    return _by_slab(weight, quantize)


def dequantize_blocks(
    codes: NDArray[np.uint8], scales: NDArray[np.float32], bits: int, columns: int
) -> NDArray[np.float32]:
    """Undo `quantize_blocks` for any selection of its rows: the codes and scales of n rows to [n, columns]."""
    if bits == 4:
        codes = np.stack((codes & 15, codes >> 4), axis=-1)
    values = codes.reshape(*scales.shape, -1).astype(np.float32) - (1 << (bits - 1))
    return (values * scales[..., None]).reshape(len(codes), -1)[:, :columns]


def quantize_rows(weight: NDArray, largest: int = 127) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric quantization with one scale per output channel.

    Args:
        weight: [N, K] floating point, of any width.
        largest: Largest magnitude of a code.

    Returns:
        Codes [N, K] int8 and scales [N] float32.
    """

    def quantize(rows: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
        scales = np.maximum(np.abs(rows).max(-1) / largest, SMALLEST_SCALE)
        return np.rint(rows / scales[:, None]).astype(np.int8), scales

    return _by_slab(weight, quantize)


def _by_slab(weight: NDArray, quantize: Callable[[NDArray[np.float32]], tuple[NDArray, NDArray]]) -> tuple:
    def slabs() -> Iterator[tuple[NDArray, NDArray]]:
        for start in range(0, len(weight), SLAB_ROWS):
            codes, scales = quantize(np.asarray(weight[start : start + SLAB_ROWS], np.float32))
            yield codes, scales.astype(np.float32)

    codes, scales = zip(*slabs(), strict=True)
    return np.concatenate(codes), np.concatenate(scales)
