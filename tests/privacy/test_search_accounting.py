"""ε of a search, from the steps of its runs; and the noise for an ε."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant

from hushtune.privacy.accounting import Phase, composed_epsilon, search
from hushtune.privacy.accounting.search import PrivateSearch, Training, calibrate_search
from hushtune.privacy.accounting.stopping import NegativeBinomial, Poisson

DELTA = 1e-5
POISSON, LOGARITHMIC, GEOMETRIC = (
    Poisson(5.0),
    NegativeBinomial(0.0, 0.05),
    NegativeBinomial(1.0, 0.2),
)
STOPPINGS = [POISSON, LOGARITHMIC, GEOMETRIC]

TRAININGS = [Training(0.125, 500, 64), Training(2.0**-6, 2000, 16), Training(1.0, 20, 4)]


def phase(noise_multiplier: float, training: Training = TRAININGS[0], scale: int | None = None):
    return dataclasses.replace(
        training.with_noise(noise_multiplier, 2**32), noise_scale_integer=scale
    )


def others(stopping, *phases: Phase) -> float:
    """ε of the same search by dp-accounting, whose Poisson distribution is not truncated."""
    parts = [
        dp_event.SelfComposedDpEvent(
            dp_event.PoissonSampledDpEvent(
                each.sampling_probability, dp_event.GaussianDpEvent(each.noise_multiplier)
            ),
            each.steps,
        )
        for each in phases
    ]
    shape = getattr(stopping, "shape", math.inf)
    mean = getattr(stopping, "rate", stopping.mean)
    accountant = RdpAccountant()
    accountant.compose(
        dp_event.RepeatAndSelectDpEvent(dp_event.ComposedDpEvent(parts), mean=mean, shape=shape)
    )
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize("stopping", STOPPINGS, ids=str)
@pytest.mark.parametrize("noise", [4.0, 10.0, 40.0])
@pytest.mark.parametrize("training", TRAININGS, ids=str)
def test_another_accountant_finds_the_same(stopping, noise, training):
    run = phase(noise, training)
    own = PrivateSearch(stopping, ((run,),)).epsilon(DELTA)
    assert own == pytest.approx(others(stopping, run), rel=2e-3)


def test_full_batches_have_the_closed_form():
    """Curve λρ, hence the best λ̂ is √(log(1/γ)/ρ), here an order of the grid."""
    rho, gamma = 0.04, math.exp(-4.0)
    run = phase(math.sqrt(1 / (2 * rho)), Training(1.0, 1, 1))
    found = PrivateSearch(NegativeBinomial(1.0, gamma), ((run,),)).epsilon(DELTA)
    chosen = 2 * (2 * math.sqrt(4.0 * rho) - rho)
    best = min(
        order * rho
        + chosen
        + 4.0 / (order - 1)
        + math.log1p(-1 / order)
        - math.log(DELTA * order) / (order - 1)
        for order in np.arange(2, 64)
    )
    assert found == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("stopping", STOPPINGS, ids=str)
def test_a_search_costs_more_than_one_of_its_runs(stopping):
    alone = composed_epsilon([phase(6.0)], delta=DELTA)
    assert PrivateSearch(stopping, ((phase(6.0),),)).epsilon(DELTA) > 1.5 * alone


@pytest.mark.parametrize("stopping", STOPPINGS, ids=str)
def test_a_search_costs_at_least_what_any_of_its_candidates_would(stopping):
    candidates = [(phase(8.0),), (phase(7.0, TRAININGS[1]),), (phase(30.0, TRAININGS[2]),)]
    alone = [PrivateSearch(stopping, (each,)).epsilon(DELTA) for each in candidates]
    together = PrivateSearch(stopping, tuple(candidates)).epsilon(DELTA)
    assert together >= max(alone)
    assert together == PrivateSearch(stopping, tuple(reversed(candidates))).epsilon(DELTA)


@pytest.mark.parametrize("stopping", STOPPINGS, ids=str)
def test_a_noised_score_is_part_of_what_a_run_releases(stopping):
    score = Phase(mechanism="gaussian", noise_multiplier=3.0, sampling_probability=1.0, steps=1)
    without = PrivateSearch(stopping, ((phase(8.0),),)).epsilon(DELTA)
    scored = PrivateSearch(stopping, ((phase(8.0), score),)).epsilon(DELTA)
    assert scored > 1.05 * without
    assert scored == pytest.approx(others(stopping, phase(8.0), score), rel=2e-3)


def test_integer_noise_is_charged_for_every_run():
    exact = PrivateSearch(POISSON, ((phase(8.0),),)).epsilon(DELTA)
    epsilons = [
        PrivateSearch(POISSON, ((phase(8.0, scale=2**bits),),)).epsilon(DELTA) for bits in (32, 18)
    ]
    assert exact == pytest.approx(epsilons[0], rel=1e-5)
    # Five runs of 500 steps with 64 numbers, each 0.0202/s² off, each with 1 + e^ε.
    distance = POISSON.mean * 500 * 64 * 0.0202 / 2**36
    left = DELTA - (1 + math.exp(epsilons[1])) * distance
    search = PrivateSearch(POISSON, ((phase(8.0),),))
    assert exact < search.epsilon(left) <= epsilons[1] < search.epsilon(0.99 * left)
    assert PrivateSearch(POISSON, ((phase(8.0, scale=2**8),),)).epsilon(DELTA) == math.inf


@pytest.mark.parametrize("stopping", STOPPINGS, ids=str)
@pytest.mark.parametrize("target", [0.5, 2.0, 8.0])
def test_noise_is_what_the_epsilon_of_the_search_takes(stopping, target):
    search = calibrate_search(
        epsilon=target,
        delta=DELTA,
        stopping=stopping,
        trainings=TRAININGS,
        noise_scale_integer=2**32,
    )
    assert 0.999 * target < search.epsilon(DELTA) <= target
    for place, (run,) in enumerate(search.candidates):
        less = dataclasses.replace(run, noise_multiplier=0.999 * run.noise_multiplier)
        candidates = list(search.candidates[: place + 1])
        candidates[place] = (less,)
        assert PrivateSearch(stopping, tuple(candidates)).epsilon(DELTA) > target, run


def test_no_noise_reaches_an_epsilon_beyond_what_integers_can_do():
    with pytest.raises(ValueError, match="noise_multiplier"):
        calibrate_search(
            epsilon=50.0,
            delta=DELTA,
            stopping=POISSON,
            trainings=TRAININGS[:1],
            noise_scale_integer=2**12,
        )


def test_plain_values_make_the_same_search_again():
    for stopping in STOPPINGS:
        search = PrivateSearch(stopping, ((phase(8.0, scale=2**40),), (phase(9.0), phase(2.0))))
        again = PrivateSearch.from_json(json.loads(json.dumps(search.to_json())))
        assert again == search
        assert again.epsilon(DELTA) == search.epsilon(DELTA)


@pytest.mark.parametrize(
    "change",
    [
        {"stopping": {"distribution": "uniform"}},
        {"stopping": {"distribution": "poisson", "rate": 0.0}},
        {"stopping": {"distribution": "poisson", "rate": "5"}},
        {"stopping": {"distribution": "negative-binomial", "shape": -0.5, "gamma": 0.1}},
        {"stopping": {"distribution": "negative-binomial", "shape": 1.0, "gamma": 1.0}},
        {"candidates": []},
    ],
    ids=str,
)
def test_values_that_make_no_search_are_refused(change):
    values = PrivateSearch(POISSON, ((phase(8.0),),)).to_json()
    with pytest.raises((ValueError, TypeError)):
        PrivateSearch.from_json(values | change)


def test_laplace_noise_is_refused():
    run = Phase(mechanism="laplace", noise_multiplier=8.0, sampling_probability=0.1, steps=5)
    with pytest.raises(ValueError, match="mechanism='laplace' to be gaussian"):
        PrivateSearch(POISSON, ((run,),))


def test_a_run_is_covered_by_a_candidate_with_as_little_noise():
    search = PrivateSearch(POISSON, ((phase(8.0, scale=2**32),),))
    assert search.covers(phase(8.0, scale=2**32))
    assert search.covers(phase(8.1, scale=2**33))
    for run in (
        phase(7.99, scale=2**32),
        phase(8.0, scale=2**31),
        phase(8.0, TRAININGS[1], scale=2**32),
        dataclasses.replace(phase(8.0, scale=2**32), directions=65),
        dataclasses.replace(phase(8.0, scale=2**32), mechanism="laplace"),
    ):
        assert not search.covers(run), run


def test_a_curve_of_no_numbers_is_not_taken_for_no_cost(monkeypatch):
    monkeypatch.setattr(search, "_renyi", lambda *_: np.full(len(search._orders()), math.nan))
    assert math.isnan(PrivateSearch(POISSON, ((phase(8.0),),))._continuous_epsilon(DELTA))
