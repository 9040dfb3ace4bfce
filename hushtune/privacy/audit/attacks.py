"""Attacks on what one step publishes, as operating points that hold with stated confidence.

All know everything but whether one unit's data are there. Tests that are learned are learned on one
part of the releases and scored on another. See `bounds` for what an operating point is worth.
"""

from __future__ import annotations

import numpy as np

from hushtune.privacy.audit import exact
from hushtune.privacy.audit.bounds import Point

# Share of the noise that thresholds are learned on, and the shares of both arms below them.
_LEARNED_FROM = 0.1
_BELOW = np.array([1e-4, 0.001, 0.01, 0.03, 0.08, 0.15, 0.25, 0.4])
_LEVELS = np.concatenate([_BELOW, 1 - _BELOW[::-1]])
# The same for the attack with memory, of which there are far fewer windows.
_FEW_LEVELS = np.array([0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
# What keeps the covariance of repeated noise invertible, as a fraction of the variance.
_RIDGE = 1e-9


def threshold_points(
    noise: np.ndarray, shift: float, *, probability: float, replace: bool, error: float
) -> list[Point]:
    """Points of the tests "the released number is at least t", for several t.

    With the unit's data the number is the noise plus `shift`; so both arms are read off the same
    noise, and the little that the shift moves across t is counted as such rather than as a
    difference of two large counts.

    Args:
        noise: (draws,) float64, released with nobody there; independent draws.
        shift: what the unit's data add, at least 0.
        probability: that the unit takes part, or a lower bound on it.
        replace: whether the unit's data are replaced by their opposite rather than removed.
        error: probability that any of the points is not attainable.
    """
    learned, scored = np.split(noise, [round(_LEARNED_FROM * len(noise))])
    thresholds = np.unique(np.quantile(np.concatenate([learned, learned + shift]), _LEVELS))
    share = error / ((5 if replace else 3) * len(thresholds))
    points = []
    for threshold in thresholds:
        nobody, there = scored >= threshold, scored + shift >= threshold
        low, high = _between(nobody, share)
        without = nobody
        if replace:
            without = scored - shift >= threshold
            least, most = _between(without, share)
            low = (1 - probability) * low + probability * least
            high = (1 - probability) * high + probability * most
        moved = exact.at_least(int((there & ~without).sum()), len(scored), share)
        points.append(surely_attainable(low, high, probability * moved))
    return points


def linear_scores(nobody: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fisher's linear discriminant, learned on the first half of each arm: scores of the others.

    Whitening by the covariance finds combinations in which noise cancels: noise that two numbers
    share is subtracted from one by the other.

    Args:
        nobody, there: (windows, numbers) float64, without and with the unit's data, in units of
            the noise as planned; two numbers or more.
    """
    half = len(nobody) // 2
    learned, scored = (nobody[:half], there[:half]), (nobody[half:], there[half:])
    difference = learned[1].mean(axis=0) - learned[0].mean(axis=0)
    covariance = np.mean([np.cov(arm, rowvar=False) for arm in learned], axis=0)
    ridge = _RIDGE * (1 + float(np.trace(covariance)) / len(covariance))
    weights = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), difference)
    weights /= max(float(np.abs(weights).max()), np.finfo(float).tiny)
    return scored[0] @ weights, scored[1] @ weights


def two_arm_points(nobody: np.ndarray, there: np.ndarray, *, error: float) -> list[Point]:
    """Points (x, y) of threshold tests on scores of two arms; both always part of the windows.

    Args:
        nobody, there: (windows,) scores without and with the unit's data; independent windows, of
            which the first half only serves to choose thresholds.
        error: probability that any of the points is not attainable.
    """
    half = len(nobody) // 2
    learned = np.concatenate([nobody[:half], there[:half]])
    thresholds = np.unique(np.quantile(learned, _FEW_LEVELS))
    share = error / (2 * len(thresholds))
    return [
        (_between(nobody[half:] >= t, share)[1], _between(there[half:] >= t, share)[0])
        for t in thresholds
    ]


def rerun_points(
    predicted: np.ndarray, without: np.ndarray, there: np.ndarray, *, error: float
) -> list[Point]:
    """The point (x, y) of the test "what is released is not what the same seeds gave before".

    Args:
        predicted, without, there: (releases,) from the same seeds, the unit being in the last.
        error: probability that the point is not attainable.
    """
    return [
        (_between(without != predicted, error / 2)[1], _between(there != predicted, error / 2)[0])
    ]


def sampled(points: list[Point], probability: float) -> list[Point]:
    """Points (x, y) as they become when the unit takes part with this probability only.

    The map that takes (P, Q) to a pair on which (x, y) is attained is linear, so that it takes the
    mixture (1 − q)·P + q·Q to one on which (x, (1 − q)·x + q·y) is.
    """
    return [(x, x + probability * (y - x)) for x, y in points]


def surely_attainable(low: float, high: float, gap: float) -> Point:
    """A point that is attainable if (x, x + g) is, for some x from `low` to `high` and g ≥ `gap`.

    At `high` the line from (x, x + g) to (1, 1) is g·(1 − high)/(1 − x) above the diagonal.
    """
    return high, high + gap * (1 - high) / (1 - low)


def _between(events: np.ndarray, error: float) -> tuple[float, float]:
    count, trials = int(events.sum()), len(events)
    return exact.at_least(count, trials, error), exact.at_most(count, trials, error)
