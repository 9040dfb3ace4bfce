"""What `exact_noise` adds follows the exact discrete laws, at the plan's scale and at small ones.

Two tests of goodness of fit, chi-square over cells and Kolmogorov–Smirnov, each of which also has
to reject a scale that is off by 3 % in either direction. The noise has no seed, so levels and
numbers of draws are chosen such that a wrong verdict of the whole file is less likely than 1e-6;
`test_the_draws_suffice` is the calculation.

The discrete Gaussian has P(k) ∝ exp(−k² / 2s²), the discrete Laplace P(k) ∝ exp(−|k| / s).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats

from hushtune.privacy.boundary import exact_noise
from hushtune.privacy.plan import PrivacyPlan

#: Of each test of this file, of which there are fewer than 50.
FALSE_ALARM = 1e-8

MECHANISMS = ("gaussian", "laplace")
FACTORS = (1.03, 1 / 1.03)

#: A Laplace scale is harder to see: its Fisher information is half as large.
DRAWS = {"gaussian": 180_000, "laplace": 300_000}

#: Cells of (nearly) equal probability.
CELLS = 16

#: Up to here probabilities are summed; no scale between it and 2^32 is tried.
SMALL = 64


def below(mechanism: str, scale: float, edges: np.ndarray) -> np.ndarray:
    """P(X < edge) for integer edges.

    Exact but for the last digits of float64. At scales from 2^32 on, the Gaussian's sum is replaced
    by the integral up to edge − 1/2. The error falls as 1/s², see
    `test_the_integral_stands_for_the_sum`, and is below 1e-20 there.
    """
    if mechanism == "laplace":
        # The geometric series P(X ≥ k) = α^k / (1 + α) for k ≥ 1, with α = exp(−1/s).
        beyond = np.where(edges > 0, edges, 1 - edges)
        tail = np.exp(-beyond / scale) / (1 + math.exp(-1 / scale))
        return np.where(edges > 0, 1 - tail, tail)
    if scale > SMALL:
        return scipy.stats.norm.cdf((edges - 0.5) / scale)
    cumulative = gaussian_sums(scale)
    reach = len(cumulative) // 2
    return cumulative[np.clip(edges, -reach, reach).astype(int) + reach]


@functools.cache
def gaussian_sums(scale: float) -> np.ndarray:
    """P(X < k) for k from −20 s to 20 s, summed in 50 digits."""
    reach = math.ceil(20 * scale)
    with localcontext(prec=50):
        variance = 2 * Decimal(scale) ** 2
        weights = [(-(Decimal(k) ** 2) / variance).exp() for k in range(-reach, reach + 1)]
        total = sum(weights)
        sums = itertools.accumulate(weights[:-1], initial=Decimal(0))
        return np.array([float(value / total) for value in sums])


def cell_edges(mechanism: str, scale: float) -> np.ndarray:
    """The first integers of all cells but the lowest, at quantiles of the law."""
    continuous = scipy.stats.norm if mechanism == "gaussian" else scipy.stats.laplace
    return np.unique(np.ceil(scale * continuous.ppf(np.arange(1, CELLS) / CELLS)))


def cell_probabilities(edges: np.ndarray, mechanism: str, scale: float) -> np.ndarray:
    return np.diff(below(mechanism, scale, edges), prepend=0.0, append=1.0)


def chi_square(noise: np.ndarray, mechanism: str, scale: float) -> float:
    """p-value of Pearson's test."""
    edges = cell_edges(mechanism, scale)
    counts = np.bincount(np.searchsorted(edges, noise, side="right"), minlength=len(edges) + 1)
    expected = len(noise) * cell_probabilities(edges, mechanism, scale)
    return float(scipy.stats.chisquare(counts, expected).pvalue)


def kolmogorov(noise: np.ndarray, mechanism: str, scale: float) -> float:
    """Upper bound on the p-value of the distance to the law of |X|.

    By Massart's bound (1990), which holds for discrete laws too: P(D > d) ≤ 2 exp(−2 n d²).
    Magnitudes show the scale twice as clearly as signed values do.
    """
    values, counts = np.unique(np.abs(noise), return_counts=True)
    law = below(mechanism, scale, values + 1) - below(mechanism, scale, -values)
    before = below(mechanism, scale, values) - below(mechanism, scale, 1 - values)
    before = np.maximum(before, 0.0)  # no magnitude is below 0
    empirical = np.cumsum(counts) / len(noise)
    distance = max(
        np.abs(empirical - law).max(), np.abs(empirical - counts / len(noise) - before).max()
    )
    return min(1.0, 2 * math.exp(-2 * len(noise) * distance**2))


TESTS = [chi_square, kolmogorov]
Test = Callable[[np.ndarray, str, float], float]


def make_plan(mechanism: str) -> PrivacyPlan:
    """A plan whose noise scale may be 3 % smaller, and still be one of a plan."""
    return PrivacyPlan.with_noise(
        mechanism=mechanism,
        delta=0.0 if mechanism == "laplace" else 1e-5,
        adjacency="add-or-remove-one",
        unit="example",
        combine="mean",
        population=100,
        sampling_probability=0.25,
        steps=3,
        directions=DRAWS[mechanism],
        clip_norm=1.5,
        noise_multiplier=4.0,
    )


@functools.cache
def draw(mechanism: str, factor: float = 1.0) -> np.ndarray:
    """One release's noise under the plan, or under one with another noise scale."""
    plan = make_plan(mechanism)
    plan = dataclasses.replace(plan, noise_scale=round(plan.noise_scale * factor))
    return np.array(exact_noise(plan)([0] * plan.directions))


@functools.cache
def draw_small(mechanism: str, scale: float) -> np.ndarray:
    """The same noise at a scale that no plan may have, where single integers can be told apart."""
    plan: Any = SimpleNamespace(mechanism=mechanism, directions=DRAWS[mechanism], noise_scale=scale)
    return np.array(exact_noise(plan)([0] * plan.directions))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("test", TESTS)
def test_noise_follows_the_exact_law_of_the_plan(test: Test, mechanism):
    assert test(draw(mechanism), mechanism, make_plan(mechanism).noise_scale) > FALSE_ALARM


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("test", TESTS)
def test_a_scale_that_is_off_by_three_percent_is_rejected(test: Test, mechanism, factor):
    assert test(draw(mechanism, factor), mechanism, make_plan(mechanism).noise_scale) < FALSE_ALARM


SCALE = 3.0


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("test", TESTS)
def test_small_noise_follows_the_exact_law(test: Test, mechanism):
    noise = draw_small(mechanism, SCALE)
    assert test(noise, mechanism, SCALE) > FALSE_ALARM
    # Neither the rounded continuous variable nor the other mechanism passes for it.
    generator = np.random.default_rng(0)
    continuous = generator.normal if mechanism == "gaussian" else generator.laplace
    assert test(np.round(continuous(scale=1.0, size=len(noise))), mechanism, 1.0) < FALSE_ALARM
    (other,) = set(MECHANISMS) - {mechanism}
    assert test(noise, other, SCALE) < FALSE_ALARM


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("test", TESTS)
def test_a_small_scale_that_is_off_by_three_percent_is_rejected(test: Test, mechanism, factor):
    assert test(draw_small(mechanism, SCALE), mechanism, SCALE * factor) < FALSE_ALARM


@pytest.mark.parametrize("drawn", [SCALE, "plan"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_draws_suffice(mechanism, drawn):
    """Each test misses a scale that is off by 3 % less often than once in 1e8 runs.

    Chi-square: under another law its statistic is about noncentral chi-square, with noncentrality
    n Σ (p′ − p)² / p. Kolmogorov: a small distance needs a small one at the magnitude where the two
    laws are furthest apart, where the empirical law is a binomial share.
    """
    count = DRAWS[mechanism]
    # Draws at the plan's scale are off by `factor`; at the small one the law is.
    scale = make_plan(mechanism).noise_scale if drawn == "plan" else drawn
    for factor in FACTORS:
        true, judged = (scale * factor, scale) if drawn == "plan" else (scale, scale * factor)
        edges = cell_edges(mechanism, judged)
        wanted, given = (cell_probabilities(edges, mechanism, each) for each in (judged, true))
        noncentrality = count * ((given - wanted) ** 2 / wanted).sum()
        critical = scipy.stats.chi2(len(edges)).isf(FALSE_ALARM)
        assert scipy.stats.ncx2(len(edges), noncentrality).cdf(critical) < FALSE_ALARM

        magnitudes = np.unique(np.round(scale * np.linspace(0, 6, 2000)))
        wanted, given = (
            below(mechanism, each, magnitudes + 1) - below(mechanism, each, -magnitudes)
            for each in (judged, true)
        )
        furthest = np.abs(wanted - given).argmax()
        critical = math.sqrt(math.log(2 / FALSE_ALARM) / (2 * count))
        share = scipy.stats.binom(count, given[furthest])
        near = [count * (wanted[furthest] + sign * critical) for sign in (-1, 1)]
        assert share.cdf(near[1]) - share.cdf(near[0]) < FALSE_ALARM


@pytest.mark.parametrize("scale", [2.0, 4.0, 8.0, 16.0, 32.0])
def test_the_integral_stands_for_the_sum(scale):
    """The error falls as 1/s² and stays below 0.0202/s²: below 1.1e-21 at s = 2^32."""
    edges = np.arange(-math.ceil(20 * scale), math.ceil(20 * scale) + 1)
    integral = scipy.stats.norm.cdf((edges - 0.5) / scale)
    error = np.abs(below("gaussian", scale, edges) - integral).max()
    assert 0.005 / scale**2 < error < 0.0202 / scale**2


def low_bits(noise: np.ndarray) -> float:
    """p-value for the last four bits being uniform.

    By the Poisson summation formula they are, but for a relative 2 exp(−2π² s² / 16²) (Gaussian)
    or about (16 / 2π s)² · π² / 3 (Laplace): below 1e-15 at s = 2^32.
    """
    return float(scipy.stats.chisquare(np.bincount(noise % 16, minlength=16)).pvalue)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_last_bits_are_uniform(mechanism):
    assert low_bits(draw(mechanism)) > FALSE_ALARM


def even(noise: np.ndarray) -> np.ndarray:
    """A grid twice as coarse."""
    return noise // 2 * 2


def single_precision(noise: np.ndarray) -> np.ndarray:
    """As a float32 normal, scaled and rounded, would be."""
    return noise.astype(np.float32).astype(np.int64)


@pytest.mark.parametrize("fault", [even, single_precision])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_coarser_noise_is_rejected_by_its_last_bits(mechanism, fault):
    assert low_bits(fault(draw(mechanism))) < FALSE_ALARM
