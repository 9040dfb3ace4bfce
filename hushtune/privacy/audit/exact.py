"""Confidence bounds and p-values for independent draws, without an approximation.

Each bound fails, and each p-value is below α, with a probability of at most the one stated,
whatever the number of draws.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special


def at_least(count: int, trials: int, error: float) -> float:
    """The lower bound of Clopper and Pearson (1934) on the probability of an event."""
    return 0.0 if count == 0 else float(special.betaincinv(count, trials - count + 1, error))


def at_most(count: int, trials: int, error: float) -> float:
    """The upper bound of Clopper and Pearson (1934) on the probability of an event."""
    return 1 - at_least(trials - count, trials, error)


def binomial_p_value(count: int, trials: int, probability: float) -> float:
    """Two-sided: twice the smaller tail of the binomial distribution, as an incomplete beta."""
    above = special.betainc(count, trials - count + 1, probability) if count > 0 else 1.0
    below = special.betaincc(count + 1, trials - count, probability) if count < trials else 1.0
    return two_sided(float(below), float(above))


def two_sided(below: float, above: float) -> float:
    """From the probabilities of this value or less, and of this value or more."""
    return min(1.0, 2 * min(below, above))


def band(draws: int, error: float) -> float:
    """How far an empirical distribution function may be off anywhere (Massart 1990)."""
    return math.sqrt(math.log(2 / error) / (2 * draws))


def band_p_value(distance: float, draws: int) -> float:
    """The error at which `band` is as wide as `distance`."""
    return min(1.0, 2 * math.exp(-2 * draws * distance**2))


def largest_distance(draws: np.ndarray, others: np.ndarray) -> float:
    """Between the empirical distribution functions of two samples, at any place."""
    places = np.sort(np.concatenate([draws, others]))
    shares = [
        np.searchsorted(np.sort(sample), places, side="right") / len(sample)
        for sample in (draws, others)
    ]
    return float(np.abs(shares[0] - shares[1]).max())
