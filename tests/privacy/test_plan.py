"""What runs and what is accounted are one object, which cannot be built wrong."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushtune.privacy import calibrate
from hushtune.privacy.plan import SMALLEST_NOISE_SCALE, PrivacyPlan

TERMS = {
    "mechanism": "gaussian",
    "delta": 1e-5,
    "adjacency": "add-or-remove-one",
    "unit": "example",
    "combine": "mean",
    "population": 1000,
    "sampling_probability": 0.25,
    "steps": 10,
    "directions": 4,
}


def make_plan(**changes) -> PrivacyPlan:
    return PrivacyPlan.with_noise(**TERMS | {"clip_norm": 2.5, "noise_multiplier": 1.7} | changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise_scale", SMALLEST_NOISE_SCALE - 1),
        ("noise_scale", 2**53),
        ("noise_scale", 2.0**40),
        ("noise_scale", math.inf),
        ("grid", 3.0 * 2.0**-32),
        ("grid", 0.0),
        ("grid", -(2.0**-32)),
        ("grid", math.nan),
        ("sensitivity", 0),
        ("sensitivity", -5),
        ("sensitivity", 1.5),
        ("sensitivity", True),
        ("clip_norm", 0.0),
        ("clip_norm", -1.0),
        ("clip_norm", math.inf),
        ("clip_norm", math.nan),
        ("clip_norm", 5e-324),
        ("sampling_probability", 0.1),
        ("sampling_probability", 0.0),
        ("sampling_probability", 1.5),
        ("steps", 0),
        ("steps", 2.5),
        ("directions", 0),
        ("population", 0),
        ("population", 2**62),
        ("mechanism", "none"),
        ("adjacency", "edit"),
        ("delta", -1e-5),
        ("delta", 1.0),
        ("delta", math.nan),
    ],
)
def test_a_plan_with_this_value_cannot_be_built(name, value):
    good = make_plan()
    with pytest.raises(ValueError, match="Expected"):
        dataclasses.replace(good, **{name: value})
    with pytest.raises(ValueError, match="Expected"):
        PrivacyPlan.from_json(good.to_json() | {name: value})


def test_a_sensitivity_other_than_that_of_clip_and_grid_is_refused():
    good = make_plan()
    for wrong in (good.sensitivity - 1, good.sensitivity + 1, good.sensitivity // 2):
        with pytest.raises(ValueError, match="sensitivity"):
            dataclasses.replace(good, sensitivity=wrong)


def test_a_plan_whose_sum_could_overflow_is_refused():
    good = make_plan()
    most = (2**63 - 1 - 64 * good.noise_scale) // good.sensitivity
    assert dataclasses.replace(good, population=most).population == most
    with pytest.raises(ValueError, match="population"):
        dataclasses.replace(good, population=most + 1)


@given(st.floats(2.0**-20, 2.0**27), st.floats(2.0**-512, 2.0**512))
def test_noise_is_never_below_what_was_asked_for_and_hardly_above(noise_multiplier, clip_norm):
    plan = make_plan(noise_multiplier=noise_multiplier, clip_norm=clip_norm, population=1)
    runs = Fraction(plan.noise_scale, plan.sensitivity)
    assert runs >= Fraction(noise_multiplier)
    assert runs <= Fraction(noise_multiplier) * (1 + Fraction(1, 2**30))
    # What is accounted is a float, and not above what runs.
    assert noise_multiplier <= plan.noise_multiplier <= runs
    assert Fraction(plan.sensitivity) * Fraction(plan.grid) <= Fraction(clip_norm)


@pytest.mark.parametrize("noise_multiplier", [0.0, -1.0, 1e-300, 1e300, math.inf, math.nan])
def test_a_noise_multiplier_that_integers_cannot_express_is_refused(noise_multiplier):
    with pytest.raises(ValueError, match="noise_multiplier"):
        make_plan(noise_multiplier=noise_multiplier)


@pytest.mark.parametrize(
    ("mechanism", "delta", "adjacency", "epsilon", "expected_units"),
    [
        ("gaussian", 1e-5, "add-or-remove-one", 2.0, 16.0),
        ("gaussian", 1e-5, "replace-one", 0.7, 1000.0),
        ("laplace", 0.0, "add-or-remove-one", 4.0, 100.0),
        ("laplace", 0.0, "replace-one", 1.0, 1000.0),
    ],
)
def test_a_plan_for_epsilon_costs_at_most_that(
    mechanism, delta, adjacency, epsilon, expected_units
):
    terms = {"mechanism": mechanism, "delta": delta, "adjacency": adjacency, "steps": 20}
    plan = PrivacyPlan.for_epsilon(
        **terms,
        epsilon=epsilon,
        unit="user_id",
        combine="mean",
        population=1000,
        expected_units=expected_units,
        directions=4,
        clip_norm=3.0,
    )
    assert 0.98 * epsilon < plan.epsilon() <= epsilon
    assert plan.sampling_probability >= expected_units / 1000
    calibrated = calibrate(
        **terms,
        epsilon=epsilon,
        sampling_probability=plan.sampling_probability,
        directions=4,
    )
    assert Fraction(plan.noise_scale, plan.sensitivity) >= Fraction(calibrated)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"expected_units": 0}, "batch"),
        ({"expected_units": 1001}, "batch"),
        ({"expected_units": math.nan}, "batch"),
        ({"delta": 1e-3}, "delta"),
        ({"delta": math.nan}, "delta"),
        ({"population": 0}, "population"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
    ],
)
def test_an_impossible_wish_is_refused_by_name(changes, name):
    wish = {key: value for key, value in TERMS.items() if key != "sampling_probability"}
    wish |= {"epsilon": 2.0, "expected_units": 10.0, "clip_norm": 1.0}
    with pytest.raises(ValueError, match=name):
        PrivacyPlan.for_epsilon(**wish | changes)


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_a_plan_survives_json(mechanism):
    plan = make_plan(mechanism=mechanism, clip_norm=0.1 + 0.2)
    assert PrivacyPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_sums_are_divided_by_the_expected_number_of_units():
    plan = make_plan(population=1000, sampling_probability=0.25)
    assert plan.expected_units == 250
    noise = plan.noise_scale * plan.grid / 250
    assert plan.noise_of_mean == pytest.approx(noise)
    laplace = make_plan(mechanism="laplace")
    assert laplace.noise_of_mean == pytest.approx(math.sqrt(2) * noise)
