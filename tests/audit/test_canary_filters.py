"""The two models of a release find coins in made-up releases, and know which of them fits."""

from __future__ import annotations

import numpy as np
import pytest

from hushtune.audit.filters import Explanation, MatchedFilter, Regression

CANARIES, DIRECTIONS, STEPS, NOISE = 60, 32, 60, 1000.0


def explain(
    *, probability: float, noise: float, size: float = 1000.0, replaced: bool = False
) -> tuple[np.ndarray, list[Explanation]]:
    """Coins, and explanations of releases that assume q = 0.2 or 1 and NOISE or NOISE / 100."""
    draw = np.random.default_rng(5)
    coins = draw.random(CANARIES) < 0.5
    filters = [
        MatchedFilter(CANARIES, 0.2, NOISE),
        MatchedFilter(CANARIES, 0.2, NOISE / 100),
        Regression(CANARIES, [NOISE, NOISE / 100]),
    ]
    for _ in range(STEPS):
        heads = size * draw.standard_normal((CANARIES, DIRECTIONS)) / np.sqrt(DIRECTIONS)
        tails = -heads if replaced else np.zeros_like(heads)
        taken = draw.random(CANARIES) < probability
        total = np.where(coins[:, None], heads, tails)[taken].sum(axis=0)
        released = np.rint(total + noise * draw.standard_normal(DIRECTIONS))
        for each in filters:
            each.observe(released, heads, tails)
    return coins, [explanation for each in filters for explanation in each.explanations()]


def best(found: list[Explanation]) -> Explanation:
    return max(found, key=lambda each: each.log_likelihood)


def right(coins: np.ndarray, scores: np.ndarray) -> int:
    return int(((scores > np.median(scores)) == coins).sum())


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize(("probability", "noise"), [(0.2, NOISE), (0.2, 10.0), (1.0, 10.0)])
def test_what_fits_best_is_what_happened(probability: float, noise: float, replaced: bool):
    coins, found = explain(probability=probability, noise=noise, replaced=replaced)
    assert (best(found).probability, best(found).noise) == (probability, noise)
    # About half of 60 by guessing.
    assert right(coins, best(found).scores) >= (45 if noise == NOISE else 52)


def test_nothing_is_seen_where_nothing_is():
    coins, found = explain(probability=0.2, noise=NOISE, size=1e-3)
    assert np.abs(best(found).scores).max() < 0.01
    assert len(coins) == CANARIES


def test_log_odds_are_those_of_bayes_for_one_canary():
    heads, released, q, noise = np.array([[2.0, 1.0]]), np.array([3.0, -1.0]), 0.25, 1.5
    each = MatchedFilter(1, q, noise)
    # The canary's own part in mean and covariance is not known to itself: take it out by hand.
    likely = q / 2
    mean = likely * heads[0]
    covariance = noise**2 * np.eye(2) + likely * np.outer(heads[0], heads[0]) - np.outer(mean, mean)
    inverse = np.linalg.inv(covariance)
    exponent = heads[0] @ inverse @ released - heads[0] @ inverse @ heads[0] / 2
    each.observe(released, heads, np.zeros_like(heads))
    (found,) = each.explanations()
    assert found.scores[0] == pytest.approx(np.log(1 - q + q * np.exp(exponent)), rel=1e-12)


def test_the_regression_is_the_textbook_one():
    draw = np.random.default_rng(1)
    heads, tails = draw.standard_normal((2, 4, 3))
    released, noise = draw.standard_normal(3), 0.7
    each = Regression(4, [noise])
    each.observe(released, heads, tails)
    (found,) = each.explanations()
    differences, rest = heads - tails, released - (heads + tails).sum(axis=0) / 2
    covariance = noise**2 * np.eye(3) + differences.T @ differences / 4
    mean = differences @ np.linalg.solve(covariance, rest) / 4
    assert found.scores == pytest.approx(mean, rel=1e-10)
    expected = -rest @ np.linalg.solve(covariance, rest) / 2
    expected -= np.linalg.slogdet(covariance)[1] / 2
    assert found.log_likelihood == pytest.approx(expected, rel=1e-10)
