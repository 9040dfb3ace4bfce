"""Noise in shares against sums that are computed in full."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushtune.privacy.accounting import (
    Phase,
    SharedRounds,
    Spent,
    composed_epsilon,
    epsilon_of_shares,
    share_of_noise,
)

SMALL = list(itertools.product([1, 2], [2, 3, 4]))
DIGITS = 60


def shares(scale: int, honest: int, **rest) -> SharedRounds:
    terms = {"sensitivity": 1, "coordinates": 1, "rounds": 1} | rest
    return SharedRounds(scale=scale, honest=honest, **terms)


def discrete_gaussian(variance: int, reach: int) -> np.ndarray:
    """Its probabilities from −reach to reach, in many digits, shape (2·reach + 1,)."""
    weights = [mpmath.exp(-mpmath.mpf(x * x) / (2 * variance)) for x in range(-reach, reach + 1)]
    total = mpmath.fsum(weights)
    return np.array([weight / total for weight in weights], dtype=object)


def summed(scale: int, honest: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the sum of shares, and of the discrete Gaussian of its variance."""
    one = discrete_gaussian(scale**2, 20 * scale)
    total = one
    for _ in range(honest - 1):
        total = np.convolve(total, one)
    return total, discrete_gaussian(honest * scale**2, len(total) // 2)


def central_part(probabilities: np.ndarray, reach: int) -> np.ndarray:
    """Those from −reach to reach: beyond, cutting shares off is what would be seen."""
    middle = len(probabilities) // 2
    return probabilities[middle - reach : middle + reach + 1]


def delta_of(probabilities: np.ndarray, shift: int, epsilon: mpmath.mpf) -> mpmath.mpf:
    """δ(ε) between two of these, one of them moved."""
    factor = mpmath.exp(epsilon)
    return mpmath.fsum(
        max(p - factor * q, 0) for p, q in zip(probabilities[shift:], probabilities, strict=False)
    )


@pytest.mark.parametrize(("scale", "honest"), SMALL)
def test_sums_of_shares_are_within_half_tau_of_a_discrete_gaussian(scale, honest):
    with mpmath.workdps(DIGITS):
        total, central = (central_part(each, 8 * scale) for each in summed(scale, honest))
        logs = [mpmath.log(p / q) for p, q in zip(total, central, strict=True)]
        tau = shares(scale, honest).tau
        assert max(abs(log) for log in logs) <= tau / 2
        # For two shares the bound is tight to its constants: 4 of 10 is what there is.
        if honest == 2:
            assert max(logs) - min(logs) == pytest.approx(0.4 * tau, rel=1e-3)


@pytest.mark.parametrize(("scale", "honest"), SMALL)
@pytest.mark.parametrize("shift", [1, 3])
def test_delta_of_shares_is_at_most_that_of_one_gaussian_and_what_is_charged(scale, honest, shift):
    with mpmath.workdps(DIGITS):
        total, central = summed(scale, honest)
        tau = mpmath.mpf(shares(scale, honest).tau)
        more = 0
        for epsilon in map(mpmath.mpf, ("0.01", "0.2", "0.5", "1", "2")):
            charged = mpmath.exp(tau / 2) * delta_of(central, shift, epsilon)
            assert delta_of(total, shift, epsilon + tau) <= charged
            more += delta_of(total, shift, epsilon) > delta_of(central, shift, epsilon)
        # Somewhere the sum reveals more than the discrete Gaussian: something has to be charged.
        assert more > 0


@pytest.mark.parametrize("honest", [2, 3, 4])
@pytest.mark.parametrize(("sensitivity", "rounds"), [(1, 1), (2, 2), (1, 3)])
def test_epsilon_holds_for_the_sums_themselves(honest, sensitivity, rounds):
    delta = 1e-3
    part = shares(1, honest, sensitivity=sensitivity, rounds=rounds)
    epsilon = epsilon_of_shares([part], delta=delta)
    total = central_part(summed(1, honest)[0], 16 * honest).astype(float)
    upper, lower = total[sensitivity:], total[:-sensitivity]
    for _ in range(rounds - 1):
        upper = np.multiply.outer(upper, total[sensitivity:]).ravel()
        lower = np.multiply.outer(lower, total[:-sensitivity]).ravel()
    revealed = np.maximum(upper - math.exp(epsilon) * lower, 0.0).sum()
    # Not by far too much either: Rényi's conversion and τ are all that is lost.
    assert delta / 20 <= revealed <= delta


@pytest.mark.parametrize(("scale", "honest"), SMALL)
def test_renyi_divergence_of_shares_is_at_most_the_curve(scale, honest):
    with mpmath.workdps(DIGITS):
        total, _ = summed(scale, honest)
        excesses = []
        for shift, order in itertools.product([1, 2, 3], ["1.001", "1.5", "3"]):
            alpha = mpmath.mpf(order)
            moment = mpmath.fsum(
                p**alpha * q ** (1 - alpha)
                for p, q in zip(total[shift:], total[:-shift], strict=True)
            )
            found = mpmath.log(moment) / (alpha - 1)
            part = shares(scale, honest, sensitivity=shift)
            # The curve is rounded up by 1e-12 of itself, which at scale 2 is more than τ.
            bound = alpha * shift**2 / (2 * part.variance) + mpmath.mpf(part.tau) / 2
            assert found <= bound <= part.renyi_divergence(float(order)) * (1 + 1e-15)
            excesses.append(found - alpha * shift**2 / (2 * part.variance))
        # Somewhere it is more than that of a Gaussian.
        assert max(excesses) > 0


@pytest.mark.parametrize("honest", [1, 2, 5, 1000])
@pytest.mark.parametrize("scale", [1, 2, 5, 6, 7, 8, 9, 2**10, 2**32])
def test_tau_is_a_bound_and_no_underflow(scale, honest):
    with mpmath.workdps(DIGITS):
        squared = 2 * mpmath.pi**2 * scale**2
        exact = 10 * mpmath.fsum(
            mpmath.exp(-squared * j / (j + mpmath.mpf(1))) for j in range(1, honest)
        )
        found = shares(scale, honest).tau
        assert (found > 0) == (honest > 1)
        assert exact <= mpmath.mpf(found) <= exact * (1 + 1e-11) + 10 * honest * math.ulp(0.0)


@given(st.integers(1, 2**53 - 1), st.integers(1, 10_000))
def test_a_share_is_the_smallest_that_reaches_the_noise(total, honest):
    scale = share_of_noise(total, honest)
    assert honest * (scale - 1) ** 2 < total**2 <= honest * scale**2


@pytest.mark.parametrize("adjacency", ["add-or-remove-one", "replace-one"])
@pytest.mark.parametrize("honest", [2, 3, 1000])
@pytest.mark.parametrize("probability", [1.0, 0.05])
def test_shares_cost_what_one_gaussian_does_from_two_to_the_32(honest, probability, adjacency):
    sensitivity = 2**31
    whole = Phase(
        mechanism="gaussian",
        noise_multiplier=2.0,
        sampling_probability=probability,
        steps=20,
        directions=64,
        noise_scale_integer=2**32,
    )
    part = SharedRounds(
        sensitivity=sensitivity,
        scale=share_of_noise(2**32, honest),
        honest=honest,
        coordinates=64,
        rounds=20,
        sampling_probability=probability,
    )
    alone = composed_epsilon([part.central], delta=1e-5, adjacency=adjacency)
    found = epsilon_of_shares([part], delta=1e-5, adjacency=adjacency)
    assert alone <= found
    expected = composed_epsilon([whole], delta=1e-5, adjacency=adjacency)
    assert found == pytest.approx(expected, rel=1e-6)


def test_shares_compose_with_each_other_and_with_other_parts():
    def part(rounds: int, scale: int = 64) -> SharedRounds:
        return shares(scale, 8, sensitivity=60, coordinates=4, rounds=rounds)

    def cost(*parts) -> float:
        return epsilon_of_shares(parts, delta=1e-3)

    assert cost(part(3), part(5)) == pytest.approx(cost(part(8)), rel=1e-9)
    assert cost(part(3)) < cost(part(3), Spent(0.1, 0.0)) < cost(part(3)) + 0.1
    assert cost(part(3), part(2, 80).central) == pytest.approx(cost(part(3), part(2, 80)))
    # The smaller the shares, the more they cost beyond their variance.
    few, many = shares(1, 4, sensitivity=1), shares(2, 1, sensitivity=1)
    assert few.variance == many.variance
    assert cost(few) == pytest.approx(cost(many) + few.tau, rel=1e-3)
    assert cost(few) > cost(many)
    # With sampling, shares are charged for on top of one Gaussian at a little less δ.
    crowd = shares(1, 10_000, sensitivity=50, rounds=20, sampling_probability=0.5)
    charge = 20 * crowd.tau
    assert charge > 0.01
    below = composed_epsilon([crowd.central], delta=1e-3 * math.exp(-charge / 2))
    assert cost(crowd) == pytest.approx(below + charge, rel=1e-4)
    assert cost(shares(1, 10_000, coordinates=10**7, sampling_probability=0.5)) == math.inf


@pytest.mark.parametrize("name", ["sensitivity", "scale", "honest", "coordinates", "rounds"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_counts_that_are_none_are_refused(name, value):
    terms = {"sensitivity": 1, "scale": 1, "honest": 2, "coordinates": 1, "rounds": 1}
    with pytest.raises(ValueError, match="Expected"):
        SharedRounds(**(terms | {name: value}))


def test_what_has_no_meaning_is_refused():
    for call in (
        lambda: share_of_noise(2**53, 2),
        lambda: share_of_noise(4, 0),
        lambda: shares(1, 2, sampling_probability=0.0),
        lambda: shares(1, 2).renyi_divergence(1.0),
        lambda: shares(1, 2, sampling_probability=0.5).renyi_divergence(2.0),
        lambda: epsilon_of_shares([shares(1, 2)], delta=0.0),
    ):
        with pytest.raises(ValueError, match="Expected"):
            call()
