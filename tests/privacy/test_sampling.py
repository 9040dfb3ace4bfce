"""Units take part independently, with exactly the probability that is accounted."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from hushtune.privacy.sampling import RESOLUTION, PoissonSampler, representable_probability

#: Every statistical test below raises a false alarm with this probability.
FALSE_ALARM = 1e-6

UNITS, STEPS = 1000, 200


def draw(probability: float) -> np.ndarray:
    """(STEPS, UNITS) whether the unit took part."""
    sampler = PoissonSampler(units=UNITS, probability=representable_probability(probability))
    taken = np.zeros((STEPS, UNITS), dtype=bool)
    for step in taken:
        step[sampler.sample()] = True
    return taken


def two_sided(statistic: float, distribution) -> float:
    return 2 * min(distribution.cdf(statistic), distribution.sf(statistic))


@pytest.mark.parametrize("probability", [0.02, 0.5, 0.93])
def test_units_take_part_with_the_accounted_probability(probability):
    taken = draw(probability)
    test = scipy.stats.binomtest(int(taken.sum()), taken.size, probability)
    assert test.pvalue > FALSE_ALARM


def test_batch_sizes_and_turns_of_a_unit_are_binomial():
    probability = 0.3
    taken = draw(probability)
    for axis, count in ((1, UNITS), (0, STEPS)):
        sums = taken.sum(axis=axis)
        variance = count * probability * (1 - probability)
        spread = ((sums - count * probability) ** 2).sum() / variance
        assert two_sided(spread, scipy.stats.chi2(len(sums))) > FALSE_ALARM


def test_steps_are_independent_of_each_other():
    probability = 0.3
    taken = draw(probability)
    both = taken[0::2] & taken[1::2]  # pairs of steps that share no step with another pair
    test = scipy.stats.binomtest(int(both.sum()), both.size, probability**2)
    assert test.pvalue > FALSE_ALARM


def test_full_batches_take_everybody():
    sampler = PoissonSampler(units=UNITS, probability=1.0)
    for _ in range(20):
        assert sampler.sample().tolist() == list(range(UNITS))


def test_a_step_may_take_nobody():
    sampler = PoissonSampler(units=3, probability=1 / RESOLUTION)
    sampled = sampler.sample()
    assert sampled.dtype == np.int64
    assert len(sampled) == 0  # fails once in 1.4e9 runs


def test_a_data_set_may_have_no_units():
    assert len(PoissonSampler(units=0, probability=0.5).sample()) == 0


@given(st.integers(1, RESOLUTION))
def test_exactly_that_many_of_the_possible_draws_take_a_unit(threshold):
    draws = np.array([0, threshold - 1, min(threshold, RESOLUTION - 1), RESOLUTION - 1])
    sampler = PoissonSampler(
        units=4,
        probability=threshold / RESOLUTION,
        random_bytes=lambda count: draws.astype(np.uint32).tobytes()[:count],
    )
    expected = [place for place, value in enumerate(draws.tolist()) if value < threshold]
    assert sampler.sample().tolist() == expected


@given(st.floats(0, 1, exclude_min=True))
def test_probabilities_are_rounded_up_to_what_the_generator_can_draw(probability):
    rounded = representable_probability(probability)
    assert probability <= rounded <= 1
    assert Fraction(rounded) - Fraction(probability) < Fraction(1, RESOLUTION)
    assert Fraction(rounded).denominator <= RESOLUTION
    assert representable_probability(rounded) == rounded


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.0000001, float("nan"), float("inf")])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(ValueError, match="sampling_probability"):
        representable_probability(probability)


def test_a_probability_that_is_not_what_was_accounted_is_refused():
    with pytest.raises(ValueError, match="multiple of 2"):
        PoissonSampler(units=3, probability=0.1)


def test_sampling_has_no_seed_within_the_process():
    sampler = PoissonSampler(units=64, probability=0.5)
    drawn = []
    for _ in range(2):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        drawn.append(sampler.sample().tolist())
    assert drawn[0] != drawn[1]  # equal by chance once in 2^64 runs
