"""Lower bounds from right guesses, against brute force and against games with known privacy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from hushtune.audit import bounds

RNG_SEED = 20


def exact_tail(guesses: int, correct: int, accuracy: Fraction) -> Fraction:
    return sum(
        (
            math.comb(guesses, k) * accuracy**k * (1 - accuracy) ** (guesses - k)
            for k in range(correct, guesses + 1)
        ),
        Fraction(0),
    )


@pytest.mark.parametrize("correct", [0, 1, 15, 20])
def test_without_delta_it_is_the_tail_of_randomised_response(correct: int):
    expected = exact_tail(20, correct, Fraction(3, 4))
    found = bounds.probability_of_guesses(50, 20, correct, epsilon=math.log(3), delta=0.0)
    assert found == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("correct", [1, 12, 17, 20])
def test_delta_costs_what_the_theorem_says(correct: int):
    canaries, guesses, delta, accuracy = 50, 20, 1e-3, Fraction(3, 4)
    tail = exact_tail(guesses, correct, accuracy)
    worst = max(
        (exact_tail(guesses, correct - i, accuracy) - tail) / i for i in range(1, correct + 1)
    )
    found = bounds.probability_of_guesses(
        canaries, guesses, correct, epsilon=math.log(3), delta=delta
    )
    expected = min(1.0, float(tail) + 2 * canaries * delta * float(worst))
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_run_that_sometimes_tells_everything_stays_within_the_bounds():
    # All coins are told with probability δ, otherwise each by ε randomised response: (ε, δ)-DP.
    canaries, epsilon, delta = 100, 1.0, 1e-3
    curve = bounds.curve_of_points([(epsilon, delta)])
    for correct in range(canaries + 1):
        tail = float(scipy.stats.binom.sf(correct - 1, canaries, 1 / (1 + math.exp(-epsilon))))
        actual = delta + (1 - delta) * tail
        for bound in (
            bounds.probability_of_guesses(
                canaries, canaries, correct, epsilon=epsilon, delta=delta
            ),
            bounds.probability_under_curve(canaries, canaries, correct, curve),
        ):
            assert actual <= bound * (1 + 1e-9)


def test_randomised_response_is_seldom_overestimated():
    draw, games, significance = np.random.default_rng(RNG_SEED), 2000, 0.05
    correct = draw.binomial(500, 1 / (1 + math.exp(-1.0)), size=games)
    bound_of = {
        count: bounds.epsilon_lower_bound(500, 500, count, delta=0.0, significance=significance)
        for count in set(correct.tolist())
    }
    too_large = sum(bound_of[count] > 1.0 for count in correct.tolist())
    # Too many by chance once in a million repetitions; for a bound without slack, about 5 %.
    assert too_large <= scipy.stats.binom.isf(1e-6, games, significance)
    assert too_large >= scipy.stats.binom.isf(1 - 1e-6, games, significance / 2)


def test_the_bound_comes_close_with_many_canaries():
    canaries = 100_000
    typical = round(canaries / (1 + math.exp(-1.0)))
    found = bounds.epsilon_lower_bound(canaries, canaries, typical, delta=0.0, significance=0.05)
    assert 0.97 < found < 1.0


@pytest.mark.parametrize("points", [[(1.0, 0.0)], [(0.0, 0.3), (0.5, 0.1), (1.5, 0.01)]])
@pytest.mark.parametrize(("canaries", "guesses", "correct"), [(12, 12, 9), (40, 10, 8), (30, 9, 9)])
def test_under_a_curve_it_is_the_largest_tail_of_all_counts(
    points: list, canaries: int, guesses: int, correct: int
):
    # The inequalities are linear where F is the least of several lines: a linear program.
    counts = np.arange(guesses + 1)
    rows, limits = [], []
    for first in range(1, guesses + 1):
        right = np.where(counts >= first, counts, 0) / canaries
        wrong = np.where(counts >= first - 1, guesses - counts, 0) / canaries
        for epsilon, delta in points:
            rows.append(right - math.exp(epsilon) * wrong)
            limits.append(delta)
            rows.append(math.exp(epsilon) * right - wrong)
            limits.append(delta + math.exp(epsilon) - 1)
    best = scipy.optimize.linprog(
        -(counts >= correct).astype(float),
        A_ub=np.array(rows),
        b_ub=np.array(limits),
        A_eq=np.ones((1, guesses + 1)),
        b_eq=[1.0],
    )
    found = bounds.probability_under_curve(
        canaries, guesses, correct, bounds.curve_of_points(points)
    )
    assert found == pytest.approx(-best.fun, abs=1e-7)


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_coins_told_with_a_common_strength_stay_within_the_gaussian_curve(mu: float):
    # N(±μ/2, 1) is randomised response of a random strength. With one strength for all coins each
    # coin is as well hidden as by normal noise of its own, and the counts vary most.
    canaries, games = 200, 20_000
    draw = np.random.default_rng(RNG_SEED)
    strength = mu * np.abs(mu / 2 + draw.standard_normal(games))
    correct = draw.binomial(canaries, 1 / (1 + np.exp(-strength)))
    for count in (110, 140, 170, 190, 200):
        bound = bounds.probability_under_curve(canaries, canaries, count, bounds.gaussian_curve(mu))
        seen = int((correct >= count).sum())
        assert scipy.stats.binom.sf(seen - 1, games, min(bound, 1.0)) > 1e-6


def test_the_gaussian_bound_is_seldom_too_large():
    canaries, guesses, games, mu = 400, 40, 300, 1.0
    draw = np.random.default_rng(RNG_SEED)
    claimed = 4.3774  # ε of telling N(0, 1) from N(1, 1) at δ = 1e-5, to four places
    found = []
    for _ in range(games):
        coins = draw.random(canaries) < 0.5
        order = np.argsort(draw.standard_normal(canaries) + mu * coins)
        correct = coins[order[-20:]].sum() + (~coins[order[:20]]).sum()
        found.append(
            bounds.gaussian_epsilon_lower_bound(
                canaries, guesses, int(correct), delta=1e-5, significance=0.05
            )
        )
    assert sum(bound > claimed for bound in found) <= scipy.stats.binom.isf(1e-6, games, 0.05)
    assert np.mean(found) > 1.0


def test_nothing_follows_from_nothing():
    assert bounds.epsilon_lower_bound(100, 100, 50, delta=1e-5, significance=0.05) == 0
    assert bounds.gaussian_epsilon_lower_bound(100, 100, 50, delta=1e-5, significance=0.05) == 0
    assert bounds.probability_under_curve(100, 100, 0, bounds.gaussian_curve(1.0)) == 1


def test_more_right_guesses_never_mean_less():
    for bound in (bounds.epsilon_lower_bound, bounds.gaussian_epsilon_lower_bound):
        found = [bound(200, 100, correct, delta=1e-5, significance=0.05) for correct in range(101)]
        assert found == sorted(found)
        assert found[-1] > 3
