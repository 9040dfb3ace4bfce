"""Grids of losses are pessimistic, and adding up on them loses nothing, however small δ is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushtune.privacy.accounting.composition import PrivacyLossCurve, Repeated
from hushtune.privacy.accounting.gaussian import gaussian_epsilon
from hushtune.privacy.accounting.losses import Losses, connect_the_dots, lattice_of, moments_of
from hushtune.privacy.accounting.pairs import (
    GaussianAddOrRemove,
    GaussianReplace,
    LaplaceAddOrRemove,
    RandomisedResponse,
)
from hushtune.privacy.accounting.tilted import Part, Window, add_up

PAIRS = [
    GaussianAddOrRemove(0.7, 0.01),
    GaussianAddOrRemove(2.0, 0.999),
    GaussianAddOrRemove(0.3, 1.0),
    GaussianReplace(0.8, 0.05),
    GaussianReplace(3.0, 0.9),
    LaplaceAddOrRemove(0.5, 0.1),
    LaplaceAddOrRemove(4.0, 1.0),
    RandomisedResponse(0.7, 1e-3),
]


@given(
    probability=st.floats(1e-4, 0.9),
    interval=st.floats(0.01, 2.0),
    first=st.integers(-30, 30),
    share=st.floats(0.0, 1.0),
)
def test_connecting_the_dots_keeps_both_masses(probability, interval, first, share):
    losses = (first + np.arange(2)) * interval
    upper = np.array([0.0, probability, 0.0])
    lower = np.array([0.0, probability * math.exp(-losses[0] - share * interval), 0.0])
    grid = connect_the_dots(upper, lower, losses)
    assert grid.masses.sum() == pytest.approx(probability, rel=1e-12)
    assert grid.masses @ np.exp(-losses) == pytest.approx(lower[1], rel=1e-9)


def test_mass_outside_the_grid_goes_up():
    outside = np.array([0.25, 0.5, 0.125])
    grid = connect_the_dots(outside, outside, np.array([0.0, 0.1]))
    assert grid.masses[0] == pytest.approx(0.75)
    assert grid.infinite == 0.125


@pytest.mark.parametrize("pair", PAIRS, ids=repr)
@pytest.mark.parametrize("loss", [-3.0, -0.05, -1e-7, 1e-7, 0.004, 0.3, 2.0, 9.0])
def test_positions_are_where_the_loss_is(pair, loss):
    position = pair.position(np.array([loss]))
    lowest, highest = pair.loss(pair.positions(-60.0)[[0, -1]])
    if lowest < loss < highest and not isinstance(pair, RandomisedResponse):
        assert pair.loss(position)[0] == pytest.approx(loss, rel=1e-12, abs=1e-15)


def exact_delta(pair, direction, epsilon):
    """δ(ε) of one step: what is above ε, under both distributions."""
    position = pair.position(np.array([-epsilon if direction else epsilon]))[0]
    upper, lower = pair.masses(np.array([-np.inf, position, np.inf]))
    if direction:
        upper, lower = lower[::-1], upper[::-1]
    return upper[1] - math.exp(epsilon) * lower[1]


def grid_delta(losses, epsilon):
    above = np.maximum(losses.values - epsilon, 0.0)
    return losses.infinite - losses.masses @ np.expm1(-above)


@pytest.mark.parametrize("pair", PAIRS, ids=repr)
@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("epsilon", [0.0, 0.02, 0.5, 3.0])
def test_grids_never_have_a_smaller_delta_and_hardly_a_larger_one(pair, direction, epsilon):
    exact = exact_delta(pair, direction, epsilon)
    grids = [lattice_of(pair, direction, -60.0, h, -math.inf) for h in (0.3, 0.1, 1e-3)]
    grids += [moments_of(pair, direction, -60.0), lattice_of(pair, direction, -60.0, 0.1, -0.5)]
    deltas = [grid_delta(grid, epsilon) for grid in grids]
    assert min(deltas) >= exact * (1 - 1e-12) - 1e-15
    assert deltas[2] <= exact * 1.001 + 1e-9
    assert deltas[3] <= exact * 1.01 + 1e-9


def direct_delta(losses, steps, interval, epsilon):
    """δ(ε) of a sum of losses by convolution, term by term."""
    masses, first = np.ones(1), 0
    for _ in range(steps):
        masses = np.convolve(masses, losses.masses)
        first += round(losses.values[0] / interval)
    above = (first + np.arange(masses.size)) * interval - epsilon
    finite = math.fsum(masses[above > 0] * -np.expm1(-above[above > 0]))
    return finite - math.expm1(steps * math.log1p(-losses.infinite))


@pytest.mark.parametrize("order", [0.5, 2.0])
@pytest.mark.parametrize("epsilon", [0.15, 1.0, 2.95])
def test_a_tilted_sum_is_the_convolution(order, epsilon):
    interval, steps = 0.05, 7
    losses = lattice_of(GaussianAddOrRemove(1.2, 0.2), 0, -40.0, interval, -math.inf)
    exact = direct_delta(losses, steps, interval, epsilon)
    window = Window(interval, first=-200, points=2**11)
    found = add_up([Part(losses, steps)], window, order, tail_order=8.0).epsilon(exact)
    assert epsilon * (1 - 1e-9) <= found <= epsilon * (1 + 1e-6)
    # Parts that are alike are one part with more steps.
    split = add_up([Part(losses, 2), Part(losses, 5)], window, order, tail_order=8.0)
    assert split.epsilon(exact) == pytest.approx(found, rel=1e-7)


@pytest.mark.parametrize("first", [-40, 0, 10])
def test_a_window_that_is_too_small_raises_delta_only(first):
    interval, steps, delta = 0.05, 7, 1e-3
    losses = lattice_of(GaussianAddOrRemove(1.2, 0.2), 0, -40.0, interval, -math.inf)
    wide = add_up([Part(losses, steps)], Window(interval, -400, 2**12), 3.0, 8.0).epsilon(delta)
    narrow = add_up([Part(losses, steps)], Window(interval, first, 2**6), 3.0, 8.0).epsilon(delta)
    assert narrow >= wide * (1 - 1e-9)


def test_the_charge_for_rounding_covers_what_rounding_does():
    """Against exact integers: losses of ±interval with probabilities of 1/4, 1/2 and 1/4."""
    interval, steps = 0.01, 300
    losses = Losses(np.array([-1, 0, 1]) * interval, np.array([0.25, 0.5, 0.25]), 0.0)
    order = 40.0
    result = add_up([Part(losses, steps)], Window(interval, -512, 2**10), order, order)
    # The sum of the steps is a binomial of twice as many halves.
    exact = np.array([math.comb(2 * steps, steps + index) for index in range(-steps, steps + 1)])
    sums = np.arange(-steps, steps + 1)
    logs = [math.log(count) for count in exact.tolist()]
    tilted = np.exp(logs + order * sums * interval - 2 * steps * math.log(2) - result.log_moment)
    error = np.linalg.norm(result.masses[512 - steps : 512 + steps + 1] - tilted)
    # The tilted masses above are themselves rounded, in exponents of up to a few hundred.
    assert error <= result.error + 1e-13
    assert result.error < 1e-10


@pytest.mark.parametrize("delta", [0.3, 1e-5, 1e-15, 1e-60, 1e-200])
@pytest.mark.parametrize(("noise_multiplier", "steps"), [(0.8, 1), (20.0, 300), (5000.0, 10**6)])
def test_unsampled_gaussian_steps_give_the_analytic_formula(noise_multiplier, steps, delta):
    """However small δ is: nothing is lost to the rounding of transforms."""
    exact = gaussian_epsilon(math.sqrt(steps) / noise_multiplier, delta)
    curve = PrivacyLossCurve([Repeated(GaussianAddOrRemove(noise_multiplier, 1.0), steps)], delta)
    assert exact <= curve.epsilon(delta) <= max(exact * 1.002, 1e-5)
    assert curve.epsilon(delta) <= curve.rough_epsilon(delta) * (1 + 1e-9)


def test_a_curve_serves_for_any_delta():
    curve = PrivacyLossCurve([Repeated(GaussianAddOrRemove(1.0, 0.01), 1000)], 1e-5)
    found = [curve.epsilon(delta) for delta in (1e-9, 9.9e-6, 1e-5, 1.01e-5, 1e-2)]
    assert found == sorted(found, reverse=True)
    alone = PrivacyLossCurve([Repeated(GaussianAddOrRemove(1.0, 0.01), 1000)], 1e-9)
    assert found[0] == alone.epsilon(1e-9)


def test_no_epsilon_holds_where_failure_alone_exceeds_delta():
    curve = PrivacyLossCurve([Repeated(RandomisedResponse(0.1, 1e-4), 2)], 1e-5)
    assert curve.epsilon(1e-5) == math.inf
