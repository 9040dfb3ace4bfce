"""A seeded orthonormal projection of one layer, and the Walsh-Hadamard transform behind it.

P = R·H·D·Π takes a layer's d numbers in a random order (Π), gives each a random sign (D),
transforms them in blocks (H) and keeps m of them, chosen at random (R). Each factor has orthonormal
rows, so P has: P·Pᵀ = I up to rounding. Order and signs spread what is large in a few coordinates
over all of a block, so that losing d − m of them loses about that share of any update, rather than
all of some (the subsampled randomised Hadamard transform: Ailon and Chazelle 2009; Tropp 2011).

Everything is float64 additions, subtractions and multiplications in a fixed order, one rounding
each, in NumPy: the same bits on every machine.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from hushtune.federated.codecs.randomness import Seed, permutation, signs
from hushtune.privacy.plan import require


@dataclass(frozen=True)
class Projection:
    """An (m, d) matrix P with orthonormal rows, never stored.

    Attributes:
        seed: public; any int or text.
        name: of the layer. Layers of different names have independent projections.
        dimension: d, the layer's numbers.
        size: m, how many are kept, from 1 up to d.

    Raises:
        ValueError: if the size is out of range.
    """

    seed: Seed
    name: str
    dimension: int
    size: int

    def __post_init__(self) -> None:
        require(1 <= self.size <= self.dimension, "size", self.size, f"from 1 to {self.dimension}")

    def project(self, values: np.ndarray) -> np.ndarray:
        """P·x: (d,) float64 to (m,)."""
        mixed = values[self._order] * self._signs
        walsh_hadamard(mixed)
        return mixed[self._kept]

    def lift(self, code: np.ndarray) -> np.ndarray:
        """Pᵀ·y: (m,) float64 to (d,)."""
        mixed = np.zeros(self.dimension, dtype=np.float64)
        mixed[self._kept] = code
        walsh_hadamard(mixed)
        values = np.empty_like(mixed)
        values[self._order] = mixed * self._signs
        return values

    @functools.cached_property
    def _order(self) -> np.ndarray:
        return permutation(self.seed, self.name, self.dimension)

    @functools.cached_property
    def _signs(self) -> np.ndarray:
        return signs(self.seed, self.name, self.dimension)

    @functools.cached_property
    def _kept(self) -> np.ndarray:
        return np.sort(permutation(self.seed, f"kept: {self.name}", self.dimension)[: self.size])


def walsh_hadamard(values: np.ndarray) -> None:
    """Transforms (d,) float64 in place, orthonormally: the transform is its own inverse.

    The blocks have the powers of two of which d is the sum, the largest first.
    """
    start = 0
    for power in reversed(range(len(values).bit_length())):
        if len(values) >> power & 1:
            _transform(values[start : start + (1 << power)], power)
            start += 1 << power


def _transform(block: np.ndarray, power: int) -> None:
    """One block of 2^power numbers, in Sylvester's order."""
    for level in range(power):
        pairs = block.reshape(-1, 2, 1 << level)
        sums = pairs[:, 0] + pairs[:, 1]
        np.subtract(pairs[:, 0], pairs[:, 1], out=pairs[:, 1])
        pairs[:, 0] = sums
    # 2^(-power/2): a power of two, times a correctly rounded root where the power is odd.
    block *= math.ldexp(math.sqrt(0.5) if power % 2 else 1.0, -(power // 2))
