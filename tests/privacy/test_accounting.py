"""ε is never below what a plan costs, and hardly ever above it."""

import itertools
import math
from decimal import Decimal, localcontext

import dp_accounting
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_terms import gaussian, laplace
from scipy import integrate, special

from hushtune.privacy import accounting
from hushtune.privacy.accounting import calibrate, epsilon, group_privacy

ADD_OR_REMOVE = "add-or-remove-one"
REPLACE = "replace-one"


def reference_epsilon(event, steps, delta, interval, adjacency=ADD_OR_REMOVE):
    """dp-accounting's own answer, on a grid finer than the one under test."""
    relation = {
        ADD_OR_REMOVE: dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        REPLACE: dp_accounting.NeighboringRelation.REPLACE_ONE,
    }[adjacency]
    accountant = dp_accounting.pld.PLDAccountant(relation, interval)
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps))
    return accountant.get_epsilon(delta)


def sampled(event, probability):
    return dp_accounting.PoissonSampledDpEvent(probability, event)


# --- values that are known -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probability", "steps", "target", "gaussian_noise", "laplace_noise"),
    [
        (0.008, 20_000, 2.0, 2.37, 80.5),
        (0.016, 10_000, 1.0, 6.03, 160.5),
        (0.016, 10_000, 4.0, 1.88, 40.5),
        (0.064, 1_000, 1.0, 7.63, 64.5),
        (0.064, 1_000, 4.0, 2.34, 16.5),
    ],
)
def test_noise_for_the_plans_of_the_literature(
    probability, steps, target, gaussian_noise, laplace_noise
):
    plan = {"epsilon": target, "sampling_probability": probability, "steps": steps}
    found = calibrate(mechanism="gaussian", delta=1e-5, **plan)
    assert found == pytest.approx(gaussian_noise, rel=3e-3)
    found = calibrate(mechanism="laplace", delta=0, **plan)
    assert found == pytest.approx(laplace_noise, abs=0.05)


def test_known_epsilons():
    assert gaussian(1.0, 0.01, 10_000) == pytest.approx(6.188, rel=1e-3)
    assert gaussian(2.0, 0.01, 10_000) == pytest.approx(2.163, rel=1e-3)
    # Doubling the sensitivity would give 6.19: replacing is not twice as bad as removing.
    assert gaussian(2.0, 0.01, 10_000, adjacency=REPLACE) == pytest.approx(4.40, abs=5e-3)


@pytest.mark.parametrize("noise_multiplier", [1.0, 2.0])
def test_the_central_limit_under_reports(noise_multiplier):
    mu = 0.01 * math.sqrt(10_000 * math.expm1(noise_multiplier**-2))
    limit = dp_accounting.get_epsilon_gaussian(1 / mu, 1e-5)
    assert limit < 0.995 * gaussian(noise_multiplier, 0.01, 10_000)


# --- never below, hardly above -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise_multiplier", "probability", "steps", "delta", "adjacency", "interval"),
    [
        (1.0, 0.01, 10_000, 1e-5, ADD_OR_REMOVE, 5e-5),
        (6.0, 0.016, 10_000, 1e-5, ADD_OR_REMOVE, 3e-5),
        (0.5, 0.001, 500, 1e-6, ADD_OR_REMOVE, 1e-4),
        (0.8, 0.5, 20, 1e-5, ADD_OR_REMOVE, 1e-3),
        (20.0, 0.05, 100_000, 1e-6, ADD_OR_REMOVE, 3e-5),
        (100.0, 0.5, 10, 1e-5, ADD_OR_REMOVE, 1e-5),
        (2.0, 0.01, 10_000, 1e-5, REPLACE, 1e-4),
        (0.7, 0.3, 30, 1e-8, REPLACE, 1e-3),
    ],
)
def test_gaussian_agrees_with_dp_accounting_on_a_finer_grid(
    noise_multiplier, probability, steps, delta, adjacency, interval
):
    event = sampled(dp_accounting.GaussianDpEvent(noise_multiplier), probability)
    tight = reference_epsilon(event, steps, delta, interval, adjacency)
    found = gaussian(noise_multiplier, probability, steps, delta, adjacency=adjacency)
    assert tight * (1 - 1e-7) <= found <= tight * 1.003


@pytest.mark.parametrize(
    ("noise_multiplier", "probability", "steps", "delta", "interval"),
    [
        (10.0, 0.016, 5_000, 1e-5, 5e-5),
        (2.0, 0.1, 100, 1e-6, 5e-4),
        (1.0, 1.0, 20, 1e-5, 1e-3),
        (0.5, 0.01, 1, 1e-3, 1e-4),
    ],
)
def test_laplace_with_delta_agrees_with_dp_accounting_on_a_finer_grid(
    noise_multiplier, probability, steps, delta, interval
):
    event = dp_accounting.LaplaceDpEvent(noise_multiplier)
    event = event if probability == 1 else sampled(event, probability)
    tight = reference_epsilon(event, steps, delta, interval)
    found = laplace(noise_multiplier, probability, steps, delta)
    assert (
        tight * (1 - 1e-7)
        <= found
        <= min(tight * 1.003, laplace(noise_multiplier, probability, steps))
    )


def exact_single_step_delta(density, other_density, at_epsilon, reach, kinks):
    """δ(ε) of two densities by adaptive quadrature of their hockey-stick divergence."""

    def excess(position):
        return max(density(position) - math.exp(at_epsilon) * other_density(position), 0.0)

    edges = [-reach, *kinks, reach]
    return sum(
        integrate.quad(excess, left, right, epsabs=1e-14, epsrel=1e-10, limit=400)[0]
        for left, right in itertools.pairwise(edges)
    )


@pytest.mark.parametrize("adjacency", [ADD_OR_REMOVE, REPLACE])
@pytest.mark.parametrize(
    ("noise_multiplier", "probability"), [(0.5, 0.05), (1.0, 0.3), (3.0, 0.9), (0.3, 0.001)]
)
def test_one_gaussian_step_against_integration(noise_multiplier, probability, adjacency):
    def normal(position):
        return math.exp(-0.5 * (position / noise_multiplier) ** 2) / (
            noise_multiplier * math.sqrt(2 * math.pi)
        )

    def present(position):
        return (1 - probability) * normal(position) + probability * normal(position - 1)

    def absent(position):
        return normal(position) if adjacency == ADD_OR_REMOVE else present(-position)

    delta = 1e-4
    found = gaussian(noise_multiplier, probability, 1, delta, adjacency=adjacency)
    reach = 1 + 12 * noise_multiplier
    kinks = list(np.linspace(-1, 2, 13))
    deltas = [
        exact_single_step_delta(present, absent, found * factor, reach, kinks)
        for factor in (1.0, 0.99)
    ]
    assert deltas[0] <= delta * (1 + 1e-6)
    assert deltas[1] > delta
    # Exchanging the data sets must be covered as well.
    assert exact_single_step_delta(absent, present, found, reach, kinks) <= delta * (1 + 1e-6)


def test_epsilon_is_zero_where_delta_covers_everything():
    assert gaussian(1.0, 1e-7, 10, 1e-5) == 0.0
    assert gaussian(1e9, 1.0, 1, 1e-5) == 0.0


# --- full batches --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise_multiplier", "steps", "delta"),
    [(1.0, 1, 1e-5), (20.0, 100, 1e-6), (0.3, 1, 1e-5), (100.0, 10**6, 1e-10), (50.0, 3, 1e-3)],
)
def test_full_batch_gaussian_is_the_analytic_formula(noise_multiplier, steps, delta):
    found = gaussian(noise_multiplier, 1.0, steps, delta)
    scale = noise_multiplier / math.sqrt(steps)
    expected = dp_accounting.get_epsilon_gaussian(scale, delta, tol=1e-13)
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-11)
    doubled = gaussian(2 * noise_multiplier, 1.0, steps, delta, adjacency=REPLACE)
    assert doubled == pytest.approx(found, rel=1e-12)


def test_full_batch_gaussian_agrees_with_the_loss_distribution():
    tight = reference_epsilon(dp_accounting.GaussianDpEvent(10.0), 50, 1e-5, 1e-4)
    found = gaussian(10.0, 1.0, 50)
    assert found <= tight <= found * 1.001


@pytest.mark.parametrize("noise_multiplier", [1e-4, 1e-2, 1.0, 1e3])
def test_full_batch_gaussian_meets_delta_at_extremes(noise_multiplier):
    delta = 1e-6
    mu = 1 / noise_multiplier
    found = gaussian(noise_multiplier, 1.0, 1, delta)
    near, far = found / mu - mu / 2, found / mu + mu / 2
    log_second = found + special.log_ndtr(-far)
    assert special.ndtr(-near) - math.exp(log_second) == pytest.approx(delta, rel=1e-5)


# --- pure ε --------------------------------------------------------------------------------------


def decimal_pure_epsilon(noise_multiplier, probability, steps, adjacency):
    with localcontext() as context:
        context.prec = 60
        loss = 1 / Decimal(noise_multiplier)
        q = Decimal(probability)
        cost = (1 - q + q * loss.exp()).ln()
        if adjacency == REPLACE:
            cost -= (1 - q + q * (-loss).exp()).ln()
        return steps * cost


@settings(max_examples=300, deadline=None)
@given(
    noise_multiplier=st.floats(2e-3, 1e5),
    probability=st.one_of(st.floats(1e-7, 1.0), st.just(1.0), st.just(1 - 2.0**-40)),
    steps=st.integers(1, 10**6),
    adjacency=st.sampled_from([ADD_OR_REMOVE, REPLACE]),
)
def test_pure_epsilon_is_rounded_up_from_the_closed_form(
    noise_multiplier, probability, steps, adjacency
):
    exact = decimal_pure_epsilon(noise_multiplier, probability, steps, adjacency)
    found = Decimal(laplace(noise_multiplier, probability, steps, adjacency=adjacency))
    assert exact <= found <= exact * (1 + Decimal("1e-12"))


@pytest.mark.parametrize("probability", [1.0, 0.3])
def test_pure_epsilon_is_the_worst_ratio_of_discrete_outputs(probability):
    """Two coordinates, every clipped vector, every output on a lattice: the bound is attained."""
    sensitivity, scale = 3, 4.0
    outputs = np.arange(-12, 13)
    noise = np.exp(-np.abs(outputs) / scale)

    def mixed(vector):
        shifted = [np.exp(-np.abs(outputs - value) / scale) for value in vector]
        return (1 - probability) * np.outer(noise, noise) + probability * np.outer(*shifted)

    vectors = [
        (a, b)
        for a in range(-sensitivity, sensitivity + 1)
        for b in range(-sensitivity, sensitivity + 1)
        if abs(a) + abs(b) <= sensitivity
    ]
    logs = [np.log(mixed(vector)) for vector in vectors]
    without = np.log(np.outer(noise, noise))
    removed = max(np.abs(log - without).max() for log in logs)
    replaced = max((log - other).max() for log in logs for other in logs)
    noise_multiplier = scale / sensitivity
    for adjacency, worst in ((ADD_OR_REMOVE, removed), (REPLACE, replaced)):
        found = laplace(noise_multiplier, probability, 1, adjacency=adjacency, directions=2)
        assert found == pytest.approx(worst, rel=1e-12)


def test_pure_epsilon_owes_nothing_to_directions_or_integers():
    plain = laplace(16.5, 0.064, 1000)
    assert laplace(16.5, 0.064, 1000, directions=64, noise_scale_integer=8) == plain


# --- order ---------------------------------------------------------------------------------------

# ε of a grid may be up to this much above its limit, so that an order holds up to it.
GRID = 1.001


@pytest.mark.parametrize("adjacency", [ADD_OR_REMOVE, REPLACE])
def test_more_steps_more_sampling_less_noise_cost_more(adjacency):
    def cost(noise_multiplier=1.5, probability=0.02, steps=500, delta=1e-5):
        return gaussian(noise_multiplier, probability, steps, delta, adjacency=adjacency)

    series = [
        [cost(steps=steps) for steps in (1, 2, 10, 500, 501, 5000)],
        [cost(probability=probability) for probability in (1e-3, 0.02, 0.0201, 0.5, 0.999, 1.0)],
        [cost(noise_multiplier=noise) for noise in (30.0, 3.0, 1.5, 1.49, 0.7, 0.3)],
        [cost(delta=delta) for delta in (1e-3, 1e-5, 1e-9)],
    ]
    for costs in series:
        assert all(low <= high * GRID for low, high in itertools.pairwise(costs))
        assert costs[0] < costs[-1]


@pytest.mark.parametrize("cost", [gaussian, laplace], ids=["gaussian", "laplace"])
def test_replacing_costs_at_least_as_much_as_removing(cost):
    for noise, probability, steps in ((1.0, 0.01, 100), (5.0, 0.3, 50), (2.0, 1.0, 3)):
        removed = cost(noise, probability, steps)
        replaced = cost(noise, probability, steps, adjacency=REPLACE)
        assert removed <= replaced * GRID


# --- groups --------------------------------------------------------------------------------------


def test_group_privacy():
    assert group_privacy(1.0, 1e-6, 1) == (1.0, 1e-6)
    group_epsilon, group_delta = group_privacy(1.0, 1e-6, 3)
    assert group_epsilon == 3.0
    assert group_delta == pytest.approx(1e-6 * (1 + math.e + math.e**2))
    assert group_privacy(0.5, 0.0, 10) == (5.0, 0.0)
    assert group_privacy(0.0, 1e-6, 5)[1] == pytest.approx(5e-6)
    assert group_privacy(1e-12, 1e-6, 5)[1] == pytest.approx(5e-6)
    assert group_privacy(400.0, 1e-6, 2) == (800.0, 1.0)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mechanism": "cauchy"}, "Expected mechanism='cauchy' to be one of gaussian, laplace."),
        ({"adjacency": "swap"}, "Expected adjacency='swap' to be one of"),
        ({"noise_multiplier": 0.0}, "Expected noise_multiplier=0.0 to be above 0 and finite."),
        ({"noise_multiplier": math.nan}, "noise_multiplier=nan"),
        ({"noise_multiplier": math.inf}, "noise_multiplier=inf"),
        ({"sampling_probability": 0}, "Expected sampling_probability=0 to be above 0"),
        ({"sampling_probability": 1.01}, "sampling_probability=1.01"),
        ({"steps": 0}, "Expected steps=0 to be an integer of at least 1."),
        ({"steps": 10.0}, "steps=10.0"),
        ({"steps": True}, "steps=True"),
        ({"delta": 1.5}, "Expected delta=1.5 to be at least 0 and below 1."),
        ({"delta": -1e-9}, "delta=-1e-09"),
        ({"delta": 0}, "Expected delta=0 to be above 0 for gaussian noise"),
        ({"directions": 0}, "Expected directions=0 to be an integer of at least 1."),
        ({"noise_scale_integer": 0}, "noise_scale_integer=0"),
        ({"mechanism": "laplace", "directions": 2}, "pure epsilon"),
        ({"mechanism": "laplace", "adjacency": REPLACE}, "pure epsilon"),
    ],
)
def test_refusals_of_epsilon(change, message):
    plan = {
        "mechanism": "gaussian",
        "noise_multiplier": 1.0,
        "sampling_probability": 0.01,
        "steps": 10,
        "delta": 1e-5,
    }
    with pytest.raises(ValueError, match=r"^Expected ") as error:
        epsilon(**(plan | change))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf, math.nan, "2"])
def test_refusals_of_calibrate(target):
    with pytest.raises(ValueError, match="Expected epsilon="):
        calibrate(
            mechanism="gaussian", epsilon=target, delta=1e-5, sampling_probability=0.1, steps=10
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((-1.0, 0.0, 2), "epsilon=-1.0"), ((1.0, 1.0, 2), "delta=1.0"), ((1.0, 0.0, 0), "size=0")],
)
def test_refusals_of_group_privacy(arguments, message):
    with pytest.raises(ValueError, match=message):
        group_privacy(*arguments)


def test_the_accountant_is_named():
    assert accounting.ACCOUNTANT == "hushtune privacy loss distributions"
    assert accounting.ACCOUNTANT_VERSION[0].isdigit()
