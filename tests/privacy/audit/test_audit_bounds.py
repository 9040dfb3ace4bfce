"""Operating points become an ε that no mechanism with those points can stay below."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from hushtune.privacy import calibrate, epsilon
from hushtune.privacy.audit.attacks import sampled, surely_attainable
from hushtune.privacy.audit.bounds import concave_envelope, plan_epsilon

SHARES = np.array([1e-5, 1e-4, 0.001, 0.01, 0.05, 0.15, 0.3])
LEVELS = np.concatenate([SHARES, 1 - SHARES, [0.5]])


def height(points, x: float) -> float:
    """Of the envelope of the points, at x."""
    corners = np.array(concave_envelope(points))
    return float(np.interp(x, *corners.T))


def exact_epsilon(point, steps: int, delta: float) -> float:
    """For one test a step: the larger root of δ(ε) = δ of the two orders of two binomials."""
    counts = np.arange(steps + 1)

    def root(upper: float, lower: float) -> float:
        one, other = (scipy.stats.binom(steps, chance).logpmf(counts) for chance in (upper, lower))
        low, high = 0.0, 10_000.0
        while high - low > 1e-9:
            middle = (low + high) / 2
            excess = (np.exp(one) * -np.expm1(np.minimum(middle + other - one, 0))).sum()
            low, high = (middle, high) if excess > delta else (low, middle)
        return low

    return max(root(point[1], point[0]), root(point[0], point[1]))


def points_of(mechanism: str, noise: float, probability: float) -> list[tuple[float, float]]:
    """The true operating points of threshold tests."""
    law = (scipy.stats.norm if mechanism == "gaussian" else scipy.stats.laplace)(scale=noise)
    thresholds = np.concatenate([law.ppf(LEVELS), 1 + law.ppf(LEVELS)])
    return sampled(list(zip(law.sf(thresholds), law.sf(thresholds - 1), strict=True)), probability)


@pytest.mark.parametrize("point", [(0.5, 0.51), (0.1, 0.2), (0.001, 0.01), (0.01, 0.98)])
@pytest.mark.parametrize("steps", [1, 7, 300])
@pytest.mark.parametrize("delta", [1e-2, 1e-6])
def test_one_test_a_step_is_a_pair_of_binomials(point, steps, delta):
    exact = exact_epsilon(point, steps, delta)
    found = plan_epsilon([point], steps=steps, delta=delta)
    assert found <= exact
    # Rounding to cells of 1/500 of a step's deviation, and 2·10⁻⁴ of δ.
    deviation = abs(math.log(point[1] / point[0]) - math.log((1 - point[1]) / (1 - point[0])))
    assert found >= exact - max(0.01 * exact, 0.02 * math.sqrt(steps) * deviation)


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
@pytest.mark.parametrize("target", [0.5, 2.0, 8.0])
@pytest.mark.parametrize(("rate", "steps"), [(0.01, 100), (0.064, 1000), (0.25, 100), (1.0, 1)])
def test_the_bound_of_known_noise_is_close_to_its_epsilon_and_never_above(
    mechanism, target, rate, steps
):
    terms = {
        "mechanism": mechanism,
        "delta": 1e-5 if mechanism == "gaussian" else 0.0,
        "sampling_probability": rate,
        "steps": steps,
    }
    noise = calibrate(epsilon=target, **terms)
    claimed = epsilon(noise_multiplier=noise, **terms)
    found = plan_epsilon(points_of(mechanism, noise, rate), steps=steps, delta=terms["delta"])
    # Points close to (1, 1) have the precision of float64 at 1, some 10⁻⁸ of their distance.
    assert 0.85 * claimed < found <= claimed * (1 + 1e-7)


def test_less_noise_is_found_to_cost_more_than_the_claim():
    terms = {"mechanism": "gaussian", "delta": 1e-5, "sampling_probability": 0.1, "steps": 500}
    noise = calibrate(epsilon=2.0, **terms)
    for factor in (1.1, 1.5, 3.0):
        points = points_of("gaussian", noise / factor, 0.1)
        assert plan_epsilon(points, steps=500, delta=1e-5) > 2.0


def test_at_delta_zero_the_most_telling_outcome_counts():
    # Of two outcomes, with 0.2 against 0.5 and 0.8 against 0.5, the first says more.
    assert plan_epsilon([(0.2, 0.5)], steps=10, delta=0) == pytest.approx(10 * math.log(2.5))
    assert plan_epsilon([(0.5, 0.8)], steps=10, delta=0) == pytest.approx(10 * math.log(2.5))


@pytest.mark.parametrize("delta", [0.0, 1e-5])
def test_where_nothing_is_told_apart_nothing_is_found(delta):
    assert plan_epsilon([], steps=100, delta=delta) == 0
    assert plan_epsilon([(0.3, 0.3), (0.5, 0.2)], steps=100, delta=delta) == 0


def test_what_delta_covers_is_not_held_against_a_plan():
    # Being noticed at all in one step of probability 1e-6 is within δ.
    assert plan_epsilon([(1e-9, 1e-6)], steps=1, delta=1e-5) == 0
    assert plan_epsilon([(1e-9, 1e-6)], steps=1, delta=1e-7) > 1


POINT = st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999))


@given(st.lists(POINT, max_size=8))
def test_the_envelope_is_concave_and_above_all_points(points):
    corners = np.array(concave_envelope(points))
    assert corners[0].tolist() == [0, 0]
    assert corners[-1].tolist() == [1, 1]
    without, present = np.diff(corners, axis=0).T
    assert (without > 0).all()
    slopes = present / without
    assert (slopes[1:] < slopes[:-1]).all()
    assert all(height(points, x) >= z - 1e-12 for x, z in points)
    assert set(map(tuple, corners[1:-1])) <= set(points)


@given(
    st.floats(0.001, 0.99), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 1)
)
def test_a_point_known_within_bounds_is_attainable(x, gap_share, below, above, least_share):
    gap = gap_share * (1 - x)
    low, high = x * below, x + above * (0.995 - x)
    point = surely_attainable(low, high, least_share * gap)
    assert height([(x, x + gap)], point[0]) >= point[1] - 1e-12


@given(POINT, st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 1))
def test_worse_bounds_on_an_attack_and_rarer_sampling_never_raise_the_bound(
    point, up, down, probability
):
    x, y = min(point), max(point)
    worse = [(x + up * (y - x) / 2, y - down * (y - x) / 2)]
    for delta in (0.0, 1e-4):
        best = plan_epsilon(sampled([(x, y)], probability), steps=5, delta=delta)
        less = plan_epsilon(sampled(worse, probability), steps=5, delta=delta)
        rarer = plan_epsilon(sampled([(x, y)], probability / 2), steps=5, delta=delta)
        # Grids differ from case to case; see the width of a cell above.
        assert max(less, rarer) <= best * 1.02 + 1e-6
