"""What every codec offers, and what all of them do in the same way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Protocol

import numpy as np

from hushtune.privacy.plan import require


class Codec(Protocol):
    """Encodes updates of d numbers as codes of m numbers, and decodes their noised mean.

    Attributes:
        kind: "identity", "linear" or "autoencoder".
        linear: whether `encode` is linear, so that decoding a mean of codes is decoding the code of
            the mean.
    """

    kind: ClassVar[str]
    linear: ClassVar[bool]

    @property
    def dimension(self) -> int:
        """d, the length of an update."""
        ...

    @property
    def size(self) -> int:
        """m, the length of a code."""
        ...

    def encode(self, updates: np.ndarray) -> np.ndarray:
        """(..., m) float64 codes of (..., d) updates.

        A row's code depends on that row alone, bit for bit, whatever stands beside it. A row that
        is not finite gives a code that need not be; the boundary makes such coordinates 0.
        """
        ...

    def decode(self, code: np.ndarray, noise: float) -> np.ndarray:
        """(d,) float64: the update that a released code stands for.

        Args:
            code: (m,) float64, a mean of codes with noise.
            noise: standard deviation of the noise on each coordinate of `code`.
        """
        ...


def by_row(
    function: Callable[[np.ndarray], np.ndarray], updates: np.ndarray, dimension: int, size: int
) -> np.ndarray:
    """(..., size) float64: the function of each (dimension,) row, computed on a copy of that row.

    Raises:
        ValueError: if rows are of another length. How many there are is private and not said.
    """
    given = np.asarray(updates, dtype=np.float64)
    if given.ndim == 0 or given.shape[-1] != dimension:
        raise ValueError(f"Expected updates of shape (..., {dimension}).")
    rows = given.reshape(-1, dimension)
    results = np.empty((len(rows), size), dtype=np.float64)
    # A warning would say that some row overflows, and rows are private.
    with np.errstate(all="ignore"):
        for row, result in zip(rows, results, strict=True):
            result[:] = function(row.copy())
    return results.reshape(*given.shape[:-1], size)


def checked_code(code: np.ndarray, noise: float, size: int) -> np.ndarray:
    """The code as (size,) float64.

    Raises:
        ValueError: if it is of another shape or not finite, or the noise no standard deviation.
    """
    given = np.asarray(code, dtype=np.float64)
    require(given.shape == (size,), "shape of code", given.shape, f"({size},)")
    require(bool(np.isfinite(given).all()), "code", "not finite", "finite")
    require(math.isfinite(noise) and noise >= 0, "noise", noise, "at least 0 and finite")
    return given
