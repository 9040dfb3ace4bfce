"""Sums of integers without overflow, at the speed of arrays.

Each number is cut into limbs of 18 bits. A product of two limbs is below 2^36, so that a sum over
up to 2^26 numbers stays below 2^62 in int64; the few sums of limbs are put together in Python's
integers. The results are exact.
"""

from __future__ import annotations

import numpy as np

_BITS = 18
_LIMBS = 4

#: So many products of two limbs add up in int64.
_BLOCK = 2**26


def sums_of_squares(rows: np.ndarray) -> list[int]:
    """Σ v² of each row of (n, K) int64."""
    return [_sum_of_products(row) for row in rows]


def sums_of_magnitudes(rows: np.ndarray) -> list[int]:
    """Σ |v| of each row of (n, K) int64."""
    return [
        sum(
            int(limb.sum()) << _BITS * place
            for start in range(0, len(row), _BLOCK)
            for place, limb in enumerate(_limbs(row[start : start + _BLOCK]))
        )
        for row in rows
    ]


def column_sums(rows: np.ndarray) -> list[int]:
    """Σ v of each column of (n, K) int64."""
    if not len(rows):
        return [0] * rows.shape[1]
    largest = max(abs(int(rows.max(initial=0))), abs(int(rows.min(initial=0))))
    if largest * len(rows) < 2**63:
        return rows.sum(axis=0).tolist()
    return [sum(column) for column in rows.T.tolist()]


def _sum_of_products(row: np.ndarray) -> int:
    total = 0
    for start in range(0, len(row), _BLOCK):
        limbs = _limbs(row[start : start + _BLOCK])
        for one in range(_LIMBS):
            for other in range(one, _LIMBS):
                product = int((limbs[one] * limbs[other]).sum())
                total += (product << _BITS * (one + other)) * (1 if one == other else 2)
    return total


def _limbs(row: np.ndarray) -> list[np.ndarray]:
    """Magnitudes as limbs, the lowest first; 2^63, the largest one, has 64 bits."""
    # The magnitude of the least int64 is none, but its bits are those of 2^63.
    magnitude = np.abs(row).astype(np.uint64)
    mask = np.uint64(2**_BITS - 1)
    return [
        ((magnitude >> np.uint64(_BITS * place)) & mask).astype(np.int64) for place in range(_LIMBS)
    ]
