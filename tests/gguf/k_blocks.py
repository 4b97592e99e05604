"""Random weights in the K types, which gguf's Python package reads but does not write.

The bytes of blocks are drawn, not quantised from numbers: every pattern of bits is a valid one, and only the
scale of a block has to be sensible. Layouts are those of ggml's block_q4_K and block_q6_K.
"""

from __future__ import annotations

import numpy as np
from gguf import GGMLQuantizationType as Type

K_TYPES = (Type.Q4_K, Type.Q6_K)
_BLOCK = 256


def random_blocks(
    rng: np.random.RandomState, rows: int, columns: int, kind: Type, spread: float
) -> np.ndarray:
    """Bytes [rows, bytes of a row] of a matrix of `columns` columns, a multiple of 256.

    Its elements have about the mean 0 and the standard deviation `spread`. Uses nothing of `rng` but bytes,
    which are the same with every NumPy.
    """
    assert columns % _BLOCK == 0
    make = {Type.Q4_K: _q4_k, Type.Q6_K: _q6_k}[kind]
    return make(rng, rows * columns // _BLOCK, spread).reshape(rows, -1)


def _half(values: np.ndarray) -> np.ndarray:
    return values.astype("<f2").view(np.uint8).reshape(len(values), 2)


def _bytes(rng: np.random.RandomState, blocks: int, count: int) -> np.ndarray:
    return np.frombuffer(rng.bytes(blocks * count), np.uint8).reshape(blocks, count).copy()


def _near(rng: np.random.RandomState, blocks: int, value: float) -> np.ndarray:
    """`value` up to a quarter more or less, in each block another."""
    return value * (0.75 + _bytes(rng, blocks, 1)[:, 0] / 510.0)


def _q4_k(rng: np.random.RandomState, blocks: int, spread: float) -> np.ndarray:
    """Scales d and dmin (half), 12 bytes of eight scales and minima of 6 bits, 128 of quants of 4 bits.

    An element is d * scale * quant - dmin * minimum.
    """
    # Scales and minima of 32 to 47: their bits lie scattered, but the high two of each are 10 throughout.
    low = _bytes(rng, blocks, 8) & 15
    packed = np.empty((blocks, 12), np.uint8)
    scales, minima = low[:, :4], low[:, 4:]
    packed[:, 0:4] = 0x80 | 0x20 | scales
    packed[:, 4:8] = 0x80 | 0x20 | minima
    # The last four of both have their low bits here and their high two above.
    packed[:, 8:12] = _bytes(rng, blocks, 4)
    # Quants of 0 to 15 have the mean 7.5 and the deviation 4.6; minima of 7.5 times the scale centre them.
    d = _near(rng, blocks, spread / (4.6 * 39.5))
    return np.concatenate([_half(d), _half(7.5 * d), packed, _bytes(rng, blocks, 128)], axis=1)


def _q6_k(rng: np.random.RandomState, blocks: int, spread: float) -> np.ndarray:
    """128 and 64 bytes of quants of 6 bits, 16 signed scales, d (half).

    An element is d * scale * (quant - 32).
    """
    # Quants have the deviation 18.5; scales of 64 to 127, of either sign.
    scales = (64 + (_bytes(rng, blocks, 16) & 63)).astype(np.int8)
    signs = np.where(_bytes(rng, blocks, 16) & 1, 1, -1).astype(np.int8)
    d = _near(rng, blocks, spread / (18.5 * 96))
    quants = _bytes(rng, blocks, 192)
    return np.concatenate([quants, (scales * signs).view(np.uint8), _half(d)], axis=1)
