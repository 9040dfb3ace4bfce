"""Updates as the square images that a convolutional network takes."""

from __future__ import annotations

import math

import numpy as np

from hushtune.federated.codecs.priors import Prior
from hushtune.privacy.plan import require


def whitened(updates: np.ndarray, prior: Prior, ratio: float) -> np.ndarray:
    """(n, 1, s, s) float64, from (n, d): mean 0 and variance 1 under the prior, then zeros."""
    side = side_of(prior.dimension, ratio)
    images = np.zeros((len(updates), side * side))
    images[:, : prior.dimension] = (updates - prior.mean) / prior.deviation
    return images.reshape(-1, 1, side, side)


def side_of(dimension: int, ratio: float) -> int:
    """s: the smallest multiple of 2ⁿ whose square holds an update."""
    unit = 2 ** halvings_of(ratio)
    return unit * -(-(math.isqrt(dimension - 1) + 1) // unit)


def halvings_of(ratio: float) -> int:
    """n, where the ratio is 2⁻ⁿ.

    Raises:
        ValueError: if it is 1 or more, or no power of two.
    """
    mantissa, exponent = math.frexp(ratio)
    require(mantissa == 0.5 and exponent <= 0, "ratio", ratio, "1/2, 1/4, 1/8, …")
    return 1 - exponent
