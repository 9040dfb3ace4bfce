"""From counts of correct guesses to lower bounds on ε: pure statistics, no model and no run.

The game: m canaries, each put in or left out by its own fair coin. Somebody who sees what the run
published guesses r of the coins and abstains on the rest; v guesses are right. Two theorems bound
the probability of v or more right guesses if the run is as private as claimed; neither assumes
anything of the attack or of how canaries influence each other.

*(ε, δ).* Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846), Theorem 5.2: with B the number of
right guesses of ε randomised response, Binomial(r, e^ε/(1 + e^ε)),

    P[V ≥ v] ≤ P[B ≥ v] + 2mδ · max_{i ≥ 1} P[v − i ≤ B < v] / i.

*A privacy curve* (Mahloujifar, Melis and Chaudhuri 2024, arXiv 2410.22235; derived anew here). Let
F be concave and increasing with P[E | coin j = 1] ≤ F(P[E | coin j = 0]) for every j, every event E
of the output and the other coins, and with the two outcomes of the coin exchanged. Fix i. For each
j, the event that j is guessed and that at least i − 1 of the other guesses are right is such an E,
so P[E, j right] ≤ F(P[E, j wrong]): average the inequality over the two values of the guess and use
that F is concave. Summed over j (concave once more), with p_c = P[V = c],

    Σ_{c ≥ i} c·p_c  ≤  m·F( Σ_{c ≥ i−1} (r − c)·p_c / m )        for every i.

`probability_under_curve` returns the largest P[V ≥ v] that any p with these properties has. It is
found by going down from c = v and giving every c the least mass that the next inequality asks for:
moving mass that is not asked for to c − 1 loosens all inequalities below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import special, stats

from hushtune.privacy import accounting

#: From P[E] at one outcome of a coin to the least P[E] at the other: the inverse of F.
LeastProbability = Callable[[float], float]

#: No ε beyond this is looked for.
LARGEST_EPSILON = 100.0

_BISECTIONS = 60


def probability_of_guesses(
    canaries: int, guesses: int, correct: int, *, epsilon: float, delta: float
) -> float:
    """A bound on P[V ≥ correct] for every (ε, δ)-DP run and every attack.

    Args:
        canaries: m, each included by a fair coin of its own.
        guesses: r, how many coins are guessed, fixed beforehand.
        correct: v.
        epsilon: ε for a change of one coin.
        delta: δ for a change of one coin.
    """
    accuracy = special.expit(epsilon)
    tail = float(stats.binom.sf(correct - 1, guesses, accuracy))
    if delta == 0 or correct == 0:
        return tail
    below = np.cumsum(stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, accuracy))
    worst = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * worst)


def epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, *, delta: float, significance: float
) -> float:
    """The largest ε that so many right guesses rule out, with P[wrong] ≤ `significance`; or 0."""
    return _largest(
        lambda epsilon: (
            probability_of_guesses(canaries, guesses, correct, epsilon=epsilon, delta=delta)
            <= significance
        ),
        LARGEST_EPSILON,
    )


def probability_under_curve(
    canaries: int, guesses: int, correct: int, least: LeastProbability
) -> float:
    """A bound on P[V ≥ correct] for every run with this privacy curve and every attack."""
    return 1.0 - _largest(
        lambda slack: _needed_mass(canaries, guesses, correct, 1.0 - slack, least) > 1.0, 1.0
    )


def _needed_mass(
    canaries: int, guesses: int, correct: int, tail: float, least: LeastProbability
) -> float:
    """The least total mass of a p with P[V ≥ correct] = `tail`; above 1 if there is none."""
    right = tail * correct / canaries
    wrong = tail * (guesses - correct) / canaries
    total = tail
    for count in range(correct - 1, -1, -1):
        missing = least(min(right, 1.0)) - wrong
        if missing > 0:
            mass = missing * canaries / (guesses - count)
            total += mass
            wrong += missing
            right += mass * count / canaries
            if total > 1.0:
                break
    return total


def gaussian_curve(mu: float) -> LeastProbability:
    """The curve of telling N(0, 1) from N(μ, 1) (Dong, Roth and Su 2019)."""
    return lambda probability: float(special.ndtr(special.ndtri(probability) - mu))


def curve_of_points(points: Sequence[tuple[float, float]]) -> LeastProbability:
    """The curve of a run that is (ε, δ)-DP for each of the given pairs.

    P ≤ e^ε Q + δ, for an event and for its complement, with P and Q in either order.
    """
    epsilon, delta = np.array(points).T
    grown, shrunk = np.exp(epsilon), np.exp(-epsilon)

    def least(probability: float) -> float:
        of_event = (probability - delta) * shrunk
        of_complement = 1.0 - delta - grown * (1.0 - probability)
        return float(max(0.0, of_event.max(), of_complement.max()))

    return least


def gaussian_epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, *, delta: float, significance: float
) -> float:
    """The largest ε at δ that is ruled out if the run's privacy curve is a Gaussian one; or 0.

    Much above `epsilon_lower_bound`, since a Gaussian curve has no room for the rare catastrophe
    that δ alone allows; it holds under that assumption only.
    """
    mu = _largest(
        lambda mu: _needed_mass(canaries, guesses, correct, significance, gaussian_curve(mu)) > 1.0,
        LARGEST_EPSILON,
    )
    if mu == 0:
        return 0.0
    return accounting.epsilon(
        mechanism="gaussian",
        noise_multiplier=1 / mu,
        sampling_probability=1.0,
        steps=1,
        delta=delta,
    )


def _largest(holds: Callable[[float], bool], most: float) -> float:
    """The largest value up to `most` at which a condition that fails from some value on holds."""
    if not holds(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < most and holds(high):
        low, high = high, 2 * high
    high = min(high, most)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
