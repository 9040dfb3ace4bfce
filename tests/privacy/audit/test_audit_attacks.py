"""Operating points hold as often as they say, and attacks find what there is to be found.

Noise here is numpy's, with seeds, and its distribution is known.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from hushtune.privacy import calibrate
from hushtune.privacy.audit import attacks
from hushtune.privacy.audit.bounds import plan_epsilon

TERMS = {"mechanism": "gaussian", "delta": 1e-5, "sampling_probability": 0.1, "steps": 200}
REPEATS, DRAWS, SHIFT, RATE = 200, 4000, 0.7, 0.3


def false_points(error: float, *, replace: bool) -> int:
    """In how many simulations a point of the attack is above what any test achieves."""
    draw, failures = np.random.default_rng(0), 0
    thresholds = np.linspace(-6, 6, 20_001)
    without = RATE * scipy.stats.norm.sf(thresholds + SHIFT * replace)
    without += (1 - RATE) * scipy.stats.norm.sf(thresholds)
    present = RATE * scipy.stats.norm.sf(thresholds - SHIFT)
    present += (1 - RATE) * scipy.stats.norm.sf(thresholds)
    for _ in range(REPEATS):
        points = attacks.threshold_points(
            draw.standard_normal(DRAWS), SHIFT, probability=RATE, replace=replace, error=error
        )
        best = np.interp([x for x, _ in points], without[::-1], present[::-1])
        failures += any(y > most + 1e-6 for (_, y), most in zip(points, best, strict=True))
    return failures


@pytest.mark.parametrize("replace", [False, True])
def test_points_are_attainable_as_often_as_they_say(replace):
    failures = false_points(0.1, replace=replace)
    assert scipy.stats.binomtest(failures, REPEATS, 0.1, alternative="greater").pvalue > 1e-6


def test_the_simulation_tells_bounds_from_estimates():
    # Bounds that each fail in half of all cases are medians.
    assert false_points(0.5 * 3 * 16, replace=False) > 0.9 * REPEATS


def bounds(scale: float, error: float, repeats: int) -> np.ndarray:
    """Of noise of this fraction of the scale that the terms need for ε = 2."""
    noise, draw = calibrate(epsilon=2.0, **TERMS), np.random.default_rng(1)
    found = []
    for _ in range(repeats):
        points = attacks.threshold_points(
            draw.normal(scale=noise * scale, size=30_000),
            1.0,
            probability=TERMS["sampling_probability"],
            replace=False,
            error=error,
        )
        found.append(plan_epsilon(points, steps=TERMS["steps"], delta=TERMS["delta"]))
    return np.array(found)


def test_the_bound_exceeds_the_claim_no_more_often_than_it_says_and_is_not_idle():
    found = bounds(1.0, error=0.5, repeats=16)
    exceeding = int((found > 2.0).sum())
    assert scipy.stats.binomtest(exceeding, 16, 0.5, alternative="greater").pvalue > 1e-6
    assert (bounds(1.0, error=0.05, repeats=3) > 0.6 * 2.0).all()


@pytest.mark.parametrize("scale", [1 / 1.5, 1 / 5, 1e-9])
def test_the_bound_exceeds_the_claim_where_noise_is_missing(scale):
    assert (bounds(scale, error=1e-6, repeats=2) > 2.0).all()


def test_thresholds_find_an_outcome_that_tells_everything():
    # Noise that is cut at two scales never reaches where shifted noise often is.
    cut = scipy.stats.truncnorm(-2, 2).rvs(size=50_000, random_state=2)
    points = attacks.threshold_points(cut, 1.0, probability=0.1, replace=False, error=1e-6)
    whole = np.random.default_rng(2).normal(scale=cut.std(), size=50_000)
    fair = attacks.threshold_points(whole, 1.0, probability=0.1, replace=False, error=1e-6)
    assert plan_epsilon(points, steps=200, delta=1e-5) > 1.5 * plan_epsilon(
        fair, steps=200, delta=1e-5
    )


def two_arms(draw: np.random.Generator, windows: int = 1000):
    """(windows, 3) each: the unit shifts the first number by a tenth of the noise."""
    return draw.standard_normal((windows, 3)), draw.normal([0.1, 0, 0], size=(windows, 3))


def test_points_of_two_arms_are_attainable_as_often_as_they_say():
    draw, failures = np.random.default_rng(3), 0
    for _ in range(REPEATS):
        scores = attacks.linear_scores(*two_arms(draw, 400))
        for x, y in attacks.two_arm_points(*scores, error=0.1):
            if y > scipy.stats.norm.cdf(scipy.stats.norm.ppf(x) + 0.1):
                failures += 1
                break
    assert scipy.stats.binomtest(failures, REPEATS, 0.1, alternative="greater").pvalue > 1e-6


def test_noise_that_two_numbers_share_is_subtracted():
    nobody, there = two_arms(np.random.default_rng(4))
    for arm in (nobody, there):
        arm[:, 0] += arm[:, 2] - arm[:, 0] * (1 - 1e-6)
    there[:, 0] += 0.1
    points = attacks.two_arm_points(*attacks.linear_scores(nobody, there), error=0.01)
    assert any(x < 0.05 and y > 0.95 for x, y in points)


def test_numbers_that_never_change_are_no_obstacle():
    arms = np.zeros((400, 2)), np.zeros((400, 2))
    points = attacks.two_arm_points(*attacks.linear_scores(*arms), error=0.01)
    assert all(y <= x for x, y in points)
    arms[1][:, 1] = 1.0
    points = attacks.two_arm_points(*attacks.linear_scores(*arms), error=0.01)
    assert any(x < 0.1 and y > 0.9 for x, y in points)
