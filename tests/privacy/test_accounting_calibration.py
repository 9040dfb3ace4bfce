"""Calibration is the inverse of ε, on the private side."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hushtune.privacy.accounting import calibrate, epsilon
from hushtune.privacy.accounting.calibration import Search

ADD_OR_REMOVE = "add-or-remove-one"
REPLACE = "replace-one"


@settings(max_examples=12, deadline=None)
@given(
    target=st.floats(0.05, 20.0),
    probability=st.one_of(st.floats(1e-3, 1.0), st.just(1.0)),
    steps=st.integers(1, 20_000),
    adjacency=st.sampled_from([ADD_OR_REMOVE, REPLACE]),
)
def test_calibration_spends_the_target_and_never_more(target, probability, steps, adjacency):
    plan = {
        "mechanism": "gaussian",
        "sampling_probability": probability,
        "steps": steps,
        "delta": 1e-5,
        "adjacency": adjacency,
    }
    noise = calibrate(epsilon=target, directions=16, **plan)
    assert epsilon(noise_multiplier=noise, **plan) <= target
    rounded_up = epsilon(
        noise_multiplier=noise * (1 + 2**-33), directions=16, noise_scale_integer=2**32, **plan
    )
    assert rounded_up <= target
    if noise > 0.011:
        assert epsilon(noise_multiplier=noise / 1.002, **plan) > target


@pytest.mark.parametrize("guess", [0.02, 1.9998, 2.0, 2.001, 700.0])
@pytest.mark.parametrize("power", [0.6, 1.0, 3.0])
def test_the_search_ends_on_the_private_side(guess, power):
    noise = Search(1.0, guess).run(lambda noise: (2.0 / noise) ** power)
    assert 2.0 < noise <= 2.0 * 1.0026


def test_the_search_gives_up_with_a_reason():
    with pytest.raises(ValueError, match=r"Expected epsilon=1\.0 to be reachable"):
        Search(1.0, 5.0).run(lambda noise: math.inf)


@pytest.mark.parametrize("adjacency", [ADD_OR_REMOVE, REPLACE])
@pytest.mark.parametrize("target", [1e-3, 0.5, 4.0, 900.0])
@pytest.mark.parametrize(("probability", "steps"), [(1.0, 1), (1.0, 10**6), (1e-4, 1), (0.3, 77)])
def test_pure_calibration_inverts_the_closed_form(target, probability, steps, adjacency):
    plan = {
        "mechanism": "laplace",
        "sampling_probability": probability,
        "steps": steps,
        "delta": 0,
        "adjacency": adjacency,
        "directions": 7,
    }
    noise = calibrate(epsilon=target, **plan)
    found = epsilon(noise_multiplier=noise, **plan)
    assert found <= target
    if noise > 0.01:
        assert found == pytest.approx(target, rel=1e-11)


@pytest.mark.parametrize("target", [0.1, 3.0])
def test_laplace_calibration_with_delta(target):
    plan = {"mechanism": "laplace", "sampling_probability": 0.05, "steps": 500, "delta": 1e-5}
    noise = calibrate(epsilon=target, **plan)
    assert target * 0.997 <= epsilon(noise_multiplier=noise, **plan) <= target


@pytest.mark.parametrize(
    ("target", "probability", "steps", "delta"),
    [
        (0.01, 0.01, 10**6, 1e-5),
        (30.0, 0.01, 1000, 1e-5),
        (30.0, 1e-3, 1, 1e-5),
        (2.0, 1e-4, 100, 1e-5),
        (1.0, 0.01, 10**6, 1e-13),
    ],
)
def test_calibration_at_extremes(target, probability, steps, delta):
    plan = {
        "mechanism": "gaussian",
        "sampling_probability": probability,
        "steps": steps,
        "delta": delta,
    }
    noise = calibrate(epsilon=target, **plan)
    assert target * 0.995 <= epsilon(noise_multiplier=noise, **plan) <= target


def test_a_plan_that_needs_no_noise_gets_a_little():
    noise = calibrate(
        mechanism="gaussian", epsilon=1.0, delta=1e-5, sampling_probability=1e-7, steps=10
    )
    assert noise == pytest.approx(0.01)
