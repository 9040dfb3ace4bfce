"""Confidence bounds and p-values err as often as they say, for any number of draws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from hushtune.privacy.audit import exact

ERROR = 0.05


@pytest.mark.parametrize("trials", [1, 20, 137])
def test_bounds_on_a_probability_fail_no_more_often_than_they_say(trials):
    counts = range(trials + 1)
    low = np.array([exact.at_least(count, trials, ERROR) for count in counts])
    high = np.array([exact.at_most(count, trials, ERROR) for count in counts])
    assert low[0] == 0
    assert high[-1] == 1
    failures = []
    for chance in np.linspace(0.001, 0.999, 499):
        mass = scipy.stats.binom(trials, chance).pmf(counts)
        failures += [mass[low > chance].sum(), mass[high < chance].sum()]
    assert max(failures) <= ERROR + 1e-12
    assert max(failures) > 0.8 * ERROR or trials == 1  # and they are not needlessly wide


@pytest.mark.parametrize("chance", [0.0, 0.01, 0.5, 0.97, 1.0])
def test_p_values_of_counts_are_small_no_more_often_than_they_say(chance):
    trials = 60
    p_values = np.array([exact.binomial_p_value(k, trials, chance) for k in range(trials + 1)])
    mass = scipy.stats.binom(trials, chance).pmf(range(trials + 1))
    for level in (0.3, 0.05, 1e-3):
        assert mass[p_values <= level].sum() <= level
    assert (p_values[mass == 0] == 0).all()


def test_a_band_holds_the_distribution_function_and_says_when_it_does_not():
    draw = np.random.default_rng(0)
    draws, repeats = 200, 400
    samples = np.sort(draw.random((repeats, draws)), axis=1)
    ranks = np.arange(draws + 1) / draws
    distances = np.maximum(ranks[1:] - samples, samples - ranks[:-1]).max(axis=1)
    outside = int((distances > exact.band(draws, 0.2)).sum())
    assert scipy.stats.binomtest(outside, repeats, 0.2, alternative="greater").pvalue > 1e-6
    assert outside > 0.1 * repeats
    assert exact.band_p_value(exact.band(draws, 0.2), draws) == pytest.approx(0.2)


def test_the_distance_of_two_samples():
    one, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5, 4.0])
    assert exact.largest_distance(one, other) == exact.largest_distance(other, one) == 0.75
    assert exact.largest_distance(one, one) == 0
    assert exact.largest_distance(np.zeros(3), np.zeros(5)) == 0
