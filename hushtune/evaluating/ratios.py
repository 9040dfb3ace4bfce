"""Metrics as ratios of two sums: how both go into one vector, and are read from its release.

A metric is Σ w x / Σ w over rows, with weights w (1, or a number of tokens) and values x from 0 to
1. For a unit with weights of sum k and m metrics with weighted sums s_1 … s_m, what is released is
the noised sum over units of

    min(1, B/k) / B · ( a·k,  b·(2 s_1 − k),  …,  b·(2 s_m − k) ),        a² + m·b² = 1

It is never longer than 1, since |2 s − k| ≤ k: a unit with more than B counts for B, all its rows
in proportion, and none is dropped. That one unit more or less moves the sum by at most 1 is checked
at the boundary once more, in integers.

With noise of standard deviation σ in each coordinate and n = Σ min(k, B)/B, the error of
x̂ = (1 + (v/b)/(u/a))/2, read from a release (u, v), is to first order

    σ/2n · √( 1/b² + (2x − 1)²/a² ),

largest at x = 0 and 1, and the largest is smallest for a² = 1/(1 + √m), b² = 1/(m + √m):
σ(1 + √m)/2n. For one metric that is σ/n, and σ/√2n in the middle. Sums that were not centred would
cost twice as much: with (k, s)/√2 the error at x = 1 is 2σ/n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: Probability with which an interval holds the ratio, as far as noise goes.
CONFIDENCE = 0.95

#: Standard deviations of its noise that a denominator has to have, for a ratio to be given.
_LEAST_DENOMINATOR = 3.0

#: Of the normal distribution, for that confidence on two sides.
_QUANTILE = 1.959964


@dataclass(frozen=True)
class Ratio:
    """A metric as it can be told from what was released.

    Attributes:
        value: from 0 to 1.
        standard_error: from the noise alone; the data being a sample of something is not in it.
        interval: low and high end of what is compatible with the noise (Fieller 1954).
    """

    value: float
    standard_error: float
    interval: tuple[float, float]


def scales(metrics: int) -> tuple[float, float]:
    """a and b, for so many metrics."""
    return 1 / math.sqrt(1 + math.sqrt(metrics)), 1 / math.sqrt(metrics + math.sqrt(metrics))


def vectors(
    weights: np.ndarray, values: np.ndarray, unit_of_row: np.ndarray, *, most: float
) -> np.ndarray:
    """(rows, 1 + m) float64, of which a unit's vector is the sum over its rows.

    Args:
        weights: (rows,) w, at least 0.
        values: (rows, m) x; those outside of 0 to 1 are cut off, those that are not numbers are 1.
        unit_of_row: (rows,) which unit each row belongs to.
        most: B.
    """
    a, b = scales(values.shape[1])
    bounded = np.clip(np.nan_to_num(values, nan=1.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    of_unit = np.bincount(unit_of_row, weights)
    share = weights / np.maximum(of_unit[unit_of_row], most)
    centred = np.concatenate([np.full((len(weights), 1), a), b * (2 * bounded - 1)], axis=1)
    return share[:, None] * centred


def denominator(released: np.ndarray, noise: float, *, most: float) -> tuple[float, float]:
    """The noised sum of weights, of which no unit adds more than `most`, and its standard error.

    Args:
        released: (1 + m,) noised sums of `vectors`.
        noise: standard deviation of each coordinate's noise.
        most: B.
    """
    a, _ = scales(len(released) - 1)
    return float(released[0]) * most / a, noise * most / a


def ratios(released: np.ndarray, noise: float) -> list[Ratio] | None:
    """The metrics; None where the denominator is too close to its noise for a ratio to say much.

    Args:
        released: (1 + m,) noised sums of `vectors`.
        noise: standard deviation of each coordinate's noise.
    """
    a, b = scales(len(released) - 1)
    below, error_below = float(released[0]) / a, noise / a
    if below < _LEAST_DENOMINATOR * error_below:
        return None
    return [_ratio(float(value) / b, noise / b, below, error_below) for value in released[1:]]


def _ratio(above: float, error_above: float, below: float, error_below: float) -> Ratio:
    """From a centred numerator and a denominator, each with the standard deviation of its noise."""
    centred = above / below
    spread = math.hypot(error_above, centred * error_below) / below
    # All t for which above − t·below is no further from 0 than its noise makes likely.
    g = (_QUANTILE * error_below / below) ** 2
    middle = centred / (1 - g)
    reach = _QUANTILE / below * math.sqrt(error_above**2 * (1 - g) + (centred * error_below) ** 2)
    low, high = middle - reach / (1 - g), middle + reach / (1 - g)
    return Ratio(_uncentred(centred), spread / 2, (_uncentred(low), _uncentred(high)))


def _uncentred(centred: float) -> float:
    return min(1.0, max(0.0, (1 + centred) / 2))
