"""Gaussian differential privacy of rounds in which everybody takes part."""

from __future__ import annotations

import math

import dp_accounting
import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_terms import gaussian

from hushtune.privacy.accounting import Phase, shown_beside
from hushtune.privacy.accounting.gaussian_dp import (
    composed_mu,
    gdp_delta,
    gdp_epsilon,
    mu_of_rounds,
    rdp_epsilon,
)

DELTA = 1e-5


def rounds(noise_multiplier: float, steps: int, probability: float = 1.0, **rest) -> Phase:
    return Phase(
        mechanism="gaussian",
        noise_multiplier=noise_multiplier,
        sampling_probability=probability,
        steps=steps,
        **rest,
    )


def exact_delta(mu: float, epsilon: float) -> mpmath.mpf:
    """The formula itself, in 60 digits."""
    with mpmath.workdps(60):
        mean, loss = mpmath.mpf(mu), mpmath.mpf(epsilon)

        def upper_tail(x: mpmath.mpf) -> mpmath.mpf:
            return mpmath.erfc(x / mpmath.sqrt(2)) / 2

        near = loss / mean - mean / 2
        return +(upper_tail(near) - mpmath.exp(loss) * upper_tail(near + mean))


@given(st.floats(-7, 5), st.floats(-10, 36))
def test_delta_is_never_below_the_truth_and_hardly_above(log_mu, near):
    mu = math.exp(log_mu)
    epsilon = max(0.0, mu * (near + mu / 2))
    exact = exact_delta(mu, epsilon)
    assert exact <= gdp_delta(mu, epsilon) <= exact * (1 + 1e-6) + 1e-300


@given(st.floats(1e-2, 50), st.floats(-60, -0.5))
def test_epsilon_holds_at_its_delta_and_hardly_less_would(mu, log_delta):
    delta = math.exp(log_delta)
    epsilon = gdp_epsilon(mu, delta)
    assert exact_delta(mu, epsilon) <= delta
    assert epsilon == 0 or exact_delta(mu, epsilon * (1 - 1e-9)) > delta


@pytest.mark.parametrize(("epsilon", "noise_multiplier"), [(2.0, 8.92), (8.0, 2.68)])
def test_noise_of_twenty_rounds_that_is_known(epsilon, noise_multiplier):
    found = gdp_epsilon(mu_of_rounds(noise_multiplier, 20), DELTA)
    assert found == pytest.approx(epsilon, rel=2.5e-3)


@pytest.mark.parametrize("adjacency", ["add-or-remove-one", "replace-one"])
@pytest.mark.parametrize(
    "phases",
    [
        [rounds(8.92, 20)],
        [rounds(2.68, 20, noise_scale_integer=2**32)],
        [rounds(30.0, 1), rounds(3.0, 5, directions=64, noise_scale_integer=2**32)],
    ],
    ids=["epsilon 2", "epsilon 8", "two kinds"],
)
def test_three_accountants_agree_within_what_each_loses(phases, adjacency):
    found = shown_beside(phases, DELTA, adjacency=adjacency)
    assert 1 - 1e-9 <= found["pld"] / found["gdp"] <= 1.01
    assert 1.02 <= found["rdp"] / found["gdp"] <= 1.2


@pytest.mark.parametrize(
    ("noise_multiplier", "probability", "steps"), [(1.0, 0.05, 20), (2.0, 0.01, 10_000)]
)
def test_sampled_rounds_get_no_gaussian_limit_since_it_under_reports(
    noise_multiplier, probability, steps
):
    phase = rounds(noise_multiplier, steps, probability)
    found = shown_beside([phase], DELTA)
    assert found["gdp"] is None
    assert found["pld"] == gaussian(noise_multiplier, probability, steps)
    event = dp_accounting.PoissonSampledDpEvent(
        probability, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    accountant = dp_accounting.rdp.RdpAccountant()
    accountant.compose(event, steps)
    assert found["rdp"] == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-3)
    limit = probability * math.sqrt(steps * math.expm1(noise_multiplier**-2))
    assert gdp_epsilon(limit, DELTA) < 0.995 * found["pld"]
    # A single round that samples is enough to lose the closed form.
    assert shown_beside([phase, rounds(10.0, 1)], DELTA)["gdp"] is None


def test_by_how_much_the_limit_under_reports_a_few_rounds():
    limit = 0.05 * math.sqrt(20 * math.expm1(1.0))
    assert gdp_epsilon(limit, DELTA) == pytest.approx(1.10, abs=5e-3)
    assert shown_beside([rounds(1.0, 20, 0.05)], DELTA)["pld"] == pytest.approx(1.99, abs=6e-3)


def test_rounds_compose_as_the_root_of_summed_squares():
    apart = composed_mu(mu_of_rounds(4.0, 1), mu_of_rounds(8.92, 20))
    assert apart == pytest.approx(math.sqrt(1 / 16 + 20 / 8.92**2), rel=1e-12)
    assert composed_mu(*[mu_of_rounds(3.0, 2)] * 7) == pytest.approx(mu_of_rounds(3.0, 14))
    assert mu_of_rounds(2.0, 9, "replace-one") == pytest.approx(2 * mu_of_rounds(2.0, 9))


@pytest.mark.parametrize("mu", [0.05, 0.5, 4.0])
def test_renyi_is_converted_at_the_best_order(mu):
    accountant = dp_accounting.rdp.RdpAccountant([1 + 0.01 * order for order in range(1, 40_000)])
    accountant.compose(dp_accounting.GaussianDpEvent(1 / mu))
    assert rdp_epsilon(mu, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-4)


def test_what_has_no_meaning_is_refused():
    for call in (
        lambda: gdp_delta(0.0, 1.0),
        lambda: gdp_delta(1.0, -1.0),
        lambda: gdp_epsilon(1.0, 0.0),
        lambda: rdp_epsilon(math.nan, DELTA),
        lambda: mu_of_rounds(1.0, 0),
        lambda: mu_of_rounds(1.0, 1, "remove-one"),
        lambda: composed_mu(1.0, math.inf),
        lambda: shown_beside([], DELTA),
        lambda: shown_beside([rounds(1.0, 1)], 0.0),
        lambda: shown_beside(
            [Phase(mechanism="laplace", noise_multiplier=1.0, sampling_probability=1, steps=1)],
            DELTA,
        ),
    ):
        with pytest.raises(ValueError, match="Expected"):
            call()
