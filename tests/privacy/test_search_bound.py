"""The theorems about a search's ε, against searches that are enumerated exactly.

The mechanism that is repeated has few outcomes, so that the best of K runs has a distribution in
closed form: Pr[best ≤ y] = f(Pr[y' ≤ y]), with f the generating function of K. Its Rényi divergence
between two neighbours, in both directions, may not exceed the bound that follows from the
mechanism's own divergences; and a bound that lacks a term of the formula is exceeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, getcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hushtune.privacy.accounting.stopping import DISTRIBUTIONS, NegativeBinomial, Poisson, Stopping

getcontext().prec = 50

ORDERS = np.array([1.01, 1.05, 1.1, 1.2, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 512])

STOPPINGS = [
    NegativeBinomial(0.0, 0.3),
    NegativeBinomial(0.0, 0.01),
    NegativeBinomial(0.5, 0.05),
    NegativeBinomial(1.0, 0.9),
    NegativeBinomial(1.0, 0.1),
    NegativeBinomial(1.0, 0.01),
    NegativeBinomial(3.0, 0.1),
    Poisson(0.2),
    Poisson(3.0),
    Poisson(20.0),
]


def generating_function(stopping: Stopping, value: Decimal) -> Decimal:
    """E[value^K], as the paper has it."""
    if isinstance(stopping, Poisson):
        rate = Decimal(stopping.rate)
        return ((rate * value).exp() - 1) / (rate.exp() - 1)
    assert isinstance(stopping, NegativeBinomial)
    shape, gamma = Decimal(stopping.shape), Decimal(stopping.gamma)
    left = 1 - (1 - gamma) * value
    if shape == 0:
        return left.ln() / gamma.ln()
    return (left**-shape - 1) / (gamma**-shape - 1)


def best_of(outcomes: Sequence[float], stopping: Stopping) -> list[Decimal]:
    """The distribution of the best of K outcomes, the last one being the best of all."""
    exact = [Decimal(each) for each in outcomes]
    at_most = [sum(exact[: place + 1]) / sum(exact) for place in range(len(exact))]
    generated = [Decimal(0), *(generating_function(stopping, Decimal(each)) for each in at_most)]
    return [after - before for before, after in pairwise(generated)]


def divergence(one: Sequence[Decimal], other: Sequence[Decimal], order: float) -> float:
    power = Decimal(float(order))
    moment = sum(p * (p / q) ** (power - 1) for p, q in zip(one, other, strict=True))
    return float(Decimal(moment).ln() / (power - 1))


def curve(one: Sequence[Any], other: Sequence[Any]) -> np.ndarray:
    """Rényi divergences of both directions, the larger of the two at each order."""
    one, other = (
        [Decimal(each) / sum(map(Decimal, outcomes)) for each in outcomes]
        for outcomes in (one, other)
    )
    return np.array(
        [max(divergence(one, other, order), divergence(other, one, order)) for order in ORDERS]
    )


def randomised_response(flip: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([1 - flip, flip]), np.array([flip, 1 - flip])


#: Pairs of output distributions on neighbouring data; the last outcome is the best.
NEIGHBOURS = [
    *(randomised_response(flip) for flip in (0.49, 0.4, 0.25, 0.1)),
    # Rare good outcomes, as a search looks for.
    *((np.array([1 - p, p]), np.array([1 - p * r, p * r])) for p, r in [(0.01, 2), (0.1, 1.2)]),
    (np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.45, 0.25, 0.2, 0.1])),
    (np.array([0.2, 0.5, 0.2, 0.1]), np.array([0.25, 0.4, 0.3, 0.05])),
    # One that hardly ever comes without somebody: E[K] times as often in a search, at low orders.
    (np.array([0.99, 0.01]), np.array([1 - 1e-22, 1e-22])),
    # One that is rarely beaten with somebody, and often without: the cost of choosing.
    (np.array([0.95 - 1e-5, 0.05, 1e-5]), np.array([0.5 - 1e-6, 1e-6, 0.5])),
    # A discrete Gaussian and its neighbour.
    tuple(np.exp(-((np.arange(-20, 21) - shift) ** 2) / (2 * 16)) for shift in (0, 1)),
]


def excess(bound: Callable[[Stopping, np.ndarray], np.ndarray], stopping: Stopping) -> float:
    """The most by which a search exceeds the bound, over all pairs and orders."""
    return max(
        float(np.max(curve(best_of(one, stopping), best_of(other, stopping)) - claimed))
        for one, other in NEIGHBOURS
        for claimed in [bound(stopping, curve(one, other))]
    )


def shipped(stopping: Stopping, base: np.ndarray) -> np.ndarray:
    return stopping.curve(ORDERS, base)


@pytest.mark.parametrize("stopping", STOPPINGS, ids=str)
def test_no_search_that_is_enumerated_exceeds_the_bound(stopping):
    assert excess(shipped, stopping) <= 1e-12


def test_the_bound_is_not_idle():
    """Some search comes close to it, so that a formula that is too low would be noticed."""
    gap = min(-excess(shipped, stopping) for stopping in STOPPINGS)
    assert gap < 0.02


def without_expected_runs(stopping: Stopping, base: np.ndarray) -> np.ndarray:
    return shipped(stopping, base) - math.log(stopping.mean) / (ORDERS - 1)


def without_the_cost_of_choosing(stopping: Stopping, base: np.ndarray) -> np.ndarray:
    return base + math.log(stopping.mean) / (ORDERS - 1)


def without_gamma(stopping: NegativeBinomial, base: np.ndarray) -> np.ndarray:
    chosen = float(np.min((1 - 1 / ORDERS) * base))
    return base + math.log(stopping.mean) / (ORDERS - 1) + (1 + stopping.shape) * chosen


def without_the_shape(stopping: NegativeBinomial, base: np.ndarray) -> np.ndarray:
    chosen = shipped(stopping, base) - base - math.log(stopping.mean) / (ORDERS - 1)
    return shipped(stopping, base) - chosen * stopping.shape / (1 + stopping.shape)


def with_a_single_run(stopping: Stopping, base: np.ndarray) -> np.ndarray:
    del stopping
    return base


OFTEN = [each for each in STOPPINGS if each.mean > 3]
NEGATIVE = [each for each in OFTEN if isinstance(each, NegativeBinomial)]


@pytest.mark.parametrize(
    ("wrong", "stopping"),
    [
        *((without_expected_runs, each) for each in OFTEN),
        *((without_the_cost_of_choosing, each) for each in OFTEN),
        *((without_gamma, each) for each in NEGATIVE),
        *((without_the_shape, each) for each in NEGATIVE if each.shape > 0),
        *((with_a_single_run, each) for each in OFTEN),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_formula_that_lacks_a_term_is_exceeded(wrong, stopping):
    assert excess(wrong, stopping) > 0.01


def test_a_search_that_hardly_ever_repeats_costs_a_run():
    base = 0.05 * ORDERS
    for stopping in (NegativeBinomial(0.0, 1 - 1e-9), NegativeBinomial(1.0, 1 - 1e-9)):
        np.testing.assert_allclose(stopping.curve(ORDERS, base), base, atol=1e-6)


@pytest.mark.parametrize("stopping", STOPPINGS, ids=str)
def test_ratios_and_mean_are_those_of_the_generating_function(stopping):
    weights = [1.0]
    while weights[-1] > 1e-18 * max(weights) or len(weights) < 10:
        weights.append(weights[-1] * float(stopping.ratio(len(weights))))
    runs = np.arange(1, len(weights) + 1)
    counts = np.array(weights) / math.fsum(weights)
    assert stopping.mean == pytest.approx(counts @ runs, rel=1e-12)
    for value in (0.1, 0.5, 0.9, 0.99):
        expected = float(generating_function(stopping, Decimal(value)))
        assert counts @ value**runs == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("mean", [2, 5, 40.5, 1000])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_has_the_mean_that_was_asked_for(name, mean):
    assert DISTRIBUTIONS[name](mean).mean == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("mean", [1, 1.9, 1001, math.nan, math.inf])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_other_means_are_refused(name, mean):
    with pytest.raises(ValueError, match=r"expected_runs=.* to be from 2 to 1000"):
        DISTRIBUTIONS[name](mean)
