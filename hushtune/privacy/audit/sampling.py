"""Whether units take part as accounted: with probability q, independently, by secret coins."""

from __future__ import annotations

import numpy as np
from scipy import stats

from hushtune.privacy.audit import exact
from hushtune.privacy.audit.findings import Finding, tested
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.sampling import PoissonSampler

_MOST_UNITS, _MOST_STEPS = 2000, 20_000


def made_up_sampler(plan: PrivacyPlan) -> tuple[PoissonSampler, int]:
    """A sampler for the plan's number of units, or fewer, and that number."""
    units = min(plan.population, _MOST_UNITS)
    return PoissonSampler(units=units, probability=plan.sampling_probability), units


def draw(plan: PrivacyPlan, coins: int) -> np.ndarray:
    """(steps, units) bool: who took part; about as many `coins` as asked for."""
    sampler, units = made_up_sampler(plan)
    # Pairs of steps are compared below.
    taken = np.zeros((2 * max(1, min(coins // units, _MOST_STEPS) // 2), units), dtype=bool)
    for step in taken:
        step[sampler.sample()] = True
    return taken


def findings(taken: np.ndarray, probability: float) -> list[Finding]:
    """Frequencies and dependence of (steps, units) bool, each by an exact binomial test."""
    steps, units = taken.shape
    total = int(taken.sum())
    frequency = exact.binomial_p_value(total, taken.size, probability)
    turns = taken.sum(axis=0)
    rarest, most_often = int(turns.min()), int(turns.max())
    each = min(exact.binomial_p_value(count, steps, probability) for count in (rarest, most_often))
    return [
        tested(
            "sampling probability",
            frequency,
            f"{total / taken.size:.6g}, planned {probability:.6g}",
        ),
        tested(
            "every unit alike",
            min(1.0, 2 * units * each),
            f"from {rarest} to {most_often} of {steps} steps a unit",
        ),
        _spread(taken.sum(axis=1), units, probability, "sizes of batches"),
        _spread(turns, steps, probability, "turns of units"),
        _both(taken[0::2] & taken[1::2], probability, "consecutive steps are independent"),
        _both(
            taken[:, 0 : units - 1 : 2] & taken[:, 1::2],
            probability,
            "neighbouring units are independent",
        ),
    ]


def _spread(counts: np.ndarray, trials: int, probability: float, name: str) -> Finding:
    """How many counts are outside the middle half of the binomial distribution they should have.

    Counts that are always the same, as those of fixed or shuffled batches, are never outside.
    """
    law = stats.binom(trials, probability)
    low, high = law.ppf([0.25, 0.75])
    outside = int(((counts < low) | (counts > high)).sum())
    expected = float(law.cdf(low - 1) + law.sf(high))
    evidence = (
        f"{outside / len(counts):.3f} outside {low:.0f} to {high:.0f}, binomial {expected:.3f}"
    )
    return tested(name, exact.binomial_p_value(outside, len(counts), expected), evidence)


def _both(both: np.ndarray, probability: float, name: str) -> Finding:
    """How often two independent events of probability q happen together."""
    count = int(both.sum())
    evidence = f"both in {count} of {both.size}, expected {both.size * probability**2:.1f}"
    return tested(name, exact.binomial_p_value(count, both.size, probability**2), evidence)
