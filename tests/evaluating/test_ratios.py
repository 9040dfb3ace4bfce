"""A unit's vector is never longer than 1, and what is read from a release is what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hushtune.evaluating.ratios import CONFIDENCE, denominator, ratios, scales, vectors

ANY = st.floats(allow_nan=True, allow_infinity=True)


def sums(weights, values, units, most=1.0) -> np.ndarray:
    """(units, 1 + m) what each unit adds."""
    rows = vectors(np.array(weights, float), np.array(values, float), np.array(units), most=most)
    return np.array([rows[np.array(units) == unit].sum(axis=0) for unit in sorted({*units})])


@given(
    st.integers(1, 3).flatmap(
        lambda m: arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(m)), elements=ANY)
    ),
    st.integers(0, 500),
    st.floats(0.01, 1000),
)
def test_no_unit_is_longer_than_one(values, weight, most):
    (vector,) = sums([weight] * len(values), values, [0] * len(values), most)
    assert np.linalg.norm(vector) <= 1 + 1e-9


@pytest.mark.parametrize("metrics", [1, 2, 5])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_unit_whose_rows_are_all_right_or_all_wrong_has_the_whole_length(metrics, value):
    (vector,) = sums([1], [[value] * metrics], [0])
    assert np.linalg.norm(vector) == pytest.approx(1)


@pytest.mark.parametrize("most", [1.0, 3.0, 50.0])
def test_a_unit_with_many_rows_is_scaled_and_none_of_them_is_dropped(most):
    right = np.arange(40) % 4 == 0
    many, few = sums([1] * 41, [*map(list, zip([*right, True], strict=True))], [0] * 40 + [1], most)
    a, b = scales(1)
    assert many[0] * most / a == pytest.approx(min(40, most))
    assert (1 + (many[1] / b) / (many[0] / a)) / 2 == pytest.approx(0.25)
    assert few[0] * most / a == pytest.approx(1)


def test_what_is_no_number_counts_as_the_largest():
    a, b = scales(1)
    vector = sums([1, 1, 1, 1], [[math.nan], [math.inf], [-math.inf], [0.25]], [0, 1, 2, 3])
    assert vector[:, 0] == pytest.approx(a)
    assert vector[:, 1] == pytest.approx([b, b, -b, -b / 2])


@pytest.mark.parametrize("metrics", [1, 2, 3])
def test_no_other_scales_have_a_smaller_largest_error(metrics):
    def largest(a: float, b: float) -> float:
        return math.sqrt(1 / a**2 + 1 / b**2) / 2

    a, b = scales(metrics)
    assert a**2 + metrics * b**2 == pytest.approx(1)
    assert largest(a, b) == pytest.approx((1 + math.sqrt(metrics)) / 2)
    for other in np.linspace(0.05, 0.95, 50):
        assert largest(other, math.sqrt((1 - other**2) / metrics)) >= largest(a, b) * (1 - 1e-9)


#: Of each statistical test here.
FALSE_ALARM = 1e-8


@pytest.mark.parametrize(("units", "value"), [(40, 1.0), (60, 0.9), (300, 0.5), (30, 0.3)])
def test_intervals_hold_the_truth_as_often_as_they_say(units, value):
    """Fieller's interval is exact for normal noise; ratios that are not given count as held."""
    noise, repetitions = 7.0, 20_000
    exact = sums([1], [[value]], [0])[0] * units
    draw = np.random.default_rng(0)
    held = 0
    for shift in noise * draw.standard_normal((repetitions, 2)):
        found = ratios(exact + shift, noise)
        low, high = (0.0, 1.0) if found is None else found[0].interval
        held += low <= value <= high
    # A sample of this size is within 6 standard deviations of 95 %, or above: 0 and 1 are known.
    slack = 6 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / repetitions)
    assert held / repetitions > CONFIDENCE - slack
    if 0 < value < 1 and units == 300:
        assert held / repetitions < CONFIDENCE + slack


@pytest.mark.parametrize("metrics", [1, 2])
@pytest.mark.parametrize("value", [0.5, 0.8])
def test_the_standard_error_is_what_releases_spread(metrics, value):
    noise, units, most = 5.0, 2000, 4.0
    exact = sums([4], [[value] * metrics], [0], most)[0] * units
    draw = np.random.default_rng(1)
    shifts = noise * draw.standard_normal((4000, 1 + metrics))
    found = [ratios(exact + shift, noise) for shift in shifts]
    values = np.array([[ratio.value for ratio in each or []] for each in found])
    (one, *_) = ratios(exact, noise) or []
    a, b = scales(metrics)
    assert one.value == pytest.approx(value)
    spread = noise / 2 / units * math.sqrt(1 / b**2 + (2 * value - 1) ** 2 / a**2)
    assert one.standard_error == pytest.approx(spread)
    # The standard deviation of 4000 draws is within 7 % of the true one, but once in 1e8 times.
    assert values.std(axis=0) == pytest.approx(spread, rel=0.07)
    totals = [denominator(exact + shift, noise, most=most) for shift in shifts]
    assert np.mean([total for total, _ in totals]) == pytest.approx(4 * units, rel=0.01)
    assert np.std([total for total, _ in totals]) == pytest.approx(totals[0][1], rel=0.07)


@pytest.mark.parametrize("units", [-50, 0, 20])
def test_where_the_denominator_is_within_its_noise_there_is_no_ratio(units):
    a, b = scales(1)
    assert ratios(np.array([units * a, 19 * b]), 7.0) is None
    assert ratios(np.array([60 * a, 19 * b]), 7.0) is not None
