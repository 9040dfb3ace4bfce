"""Gaussian and Rényi differential privacy of Gaussian rounds without amplification, beside PLD.

A round in which everybody takes part, with noise of σ clipping norms, is exactly μ-Gaussian
differentially private with μ = 1/σ (2/σ for replace-one). Rounds compose to √Σμ², exactly (Dong,
Roth and Su 2022, Corollary 3.3), and the Rényi divergence of order α is αμ²/2. So three accountants
can be shown beside each other, and only their conversions to (ε, δ) differ: Gaussian differential
privacy converts without loss, a privacy loss distribution loses what its grid rounds up, and
Rényi's conversion loses some 10 %.

None of this holds for rounds that sample. Their Gaussian limit (Bu, Dong, Long and Su 2020) is
where a sum of many losses tends to, and is below what finitely many cost: with σ = 1, q = 0.05,
20 rounds and δ = 1e-5 it says ε = 1.10, where 1.99 is true. It is never given here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from hushtune.privacy.accounting.composed import Phase
from hushtune.privacy.accounting.composition import PrivacyLossCurve, Repeated
from hushtune.privacy.accounting.discretisation import Drawn, integer_epsilon
from hushtune.privacy.accounting.gaussian import SHIFT, gaussian_epsilon
from hushtune.privacy.accounting.losses import moments_of
from hushtune.privacy.accounting.moments import Moments
from hushtune.privacy.accounting.pairs import GaussianAddOrRemove, GaussianReplace
from hushtune.privacy.accounting.tilted import Part
from hushtune.privacy.accounting.validation import (
    check_delta_of_gaussian,
    check_guarantee,
    check_noise_multiplier,
    expect,
    is_positive_integer,
    is_real,
)

_UNIT = 2.0**-53
# How far a logarithm of Φ may be off, in units in the last place of it.
_LOG_UNITS = 16.0
# Fraction of δ that the tails of all rounds may have whose loss counts as infinite in moments.
_TAIL_SHARE = 1e-7


def mu_of_rounds(
    noise_multiplier: float, rounds: int, adjacency: str = "add-or-remove-one"
) -> float:
    """μ = √T/σ, or 2√T/σ for replace-one; from above in the last digit.

    Args:
        noise_multiplier: σ/C, the scale of a round's noise over the clipping norm.
        rounds: T, in all of which everybody takes part.
        adjacency: "add-or-remove-one" or "replace-one".

    Raises:
        ValueError: if a value is out of range.
    """
    check_noise_multiplier(noise_multiplier)
    expect(is_positive_integer(rounds), "rounds", rounds, "an integer of at least 1")
    expect(adjacency in SHIFT, "adjacency", adjacency, " or ".join(SHIFT))
    return SHIFT[adjacency] * math.sqrt(rounds) / noise_multiplier * (1 + 8 * _UNIT)


def composed_mu(*each: float) -> float:
    """√Σμ²: what releases that are μ-Gaussian differentially private are together."""
    for mu in each:
        _expect_mu(mu)
    return math.hypot(*each) * (1 + 8 * _UNIT)


def gdp_delta(mu: float, epsilon: float) -> float:
    """δ(ε) = Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ), never below the truth, at most 1.

    The difference is taken of logarithms, so that neither e^ε nor a tail leaves the range of
    numbers, and their rounding is added (Balle and Wang 2018, Theorem 8).

    Args:
        mu: μ, above 0.
        epsilon: ε, at least 0.

    Raises:
        ValueError: if a value is out of range.
    """
    _expect_mu(mu)
    expect(is_real(epsilon) and epsilon >= 0, "epsilon", epsilon, "at least 0 and finite")
    near, far = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    # Below 0 log Φ(x) is about −x²/2: arguments that are off by a unit move it by units of itself,
    # and the second argument is the larger one, so that its logarithm bounds what both can lose.
    log_first, log_tail = float(special.log_ndtr(near)), float(special.log_ndtr(far))
    error = _UNIT * (_LOG_UNITS * (1 + abs(log_first) + abs(log_tail)) + epsilon)
    log_ratio = epsilon + log_tail - log_first
    share = -math.expm1(min(log_ratio - error, 0.0))
    # The smallest number stands for whatever is below it.
    return min(math.exp(log_first + error) * share * (1 + 8 * _UNIT) + math.ulp(0.0), 1.0)


def gdp_epsilon(mu: float, delta: float) -> float:
    """The smallest ε of μ-Gaussian differential privacy at δ, by bisection, rounded up.

    Raises:
        ValueError: if μ is not positive or δ not between 0 and 1.
    """
    _expect_mu(mu)
    _check_delta(delta)
    return gaussian_epsilon(mu, delta)


def rdp_epsilon(mu: float, delta: float) -> float:
    """ε at δ from the Rényi curve αμ²/2 alone, at about its best order.

    Converted by Canonne, Kamath and Steinke 2020, Proposition 12, which holds at every order.

    Raises:
        ValueError: if μ is not positive or δ not between 0 and 1.
    """
    _expect_mu(mu)
    _check_delta(delta)
    # Without the small terms of the conversion the best order is 1 + √(2·log(1/δ))/μ.
    orders = 1 + math.sqrt(-2 * math.log(delta)) / mu * np.geomspace(0.01, 100.0, 4001)
    converted = np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return max(0.0, float((orders * (mu * mu / 2) + converted).min())) * (1 + 1e-9)


def shown_beside(
    phases: Sequence[Phase], delta: float, *, adjacency: str = "add-or-remove-one"
) -> dict[str, float | None]:
    """ε of the same rounds by three accountants, to be shown side by side.

    "pld" adds privacy losses up on a grid, round by round, without knowing of the closed form; it
    alone may be reported where rounds sample. In "pld" and "gdp" integer noise is charged for, with
    less than 1e-6 of ε for scales from 2^32. "rdp" is of continuous noise, whose curve is also the
    discrete Gaussian's where nobody samples (Canonne, Kamath and Steinke 2020). Each is an upper
    bound, "rdp" of sampled rounds but for the noise being of integers.

    Args:
        phases: Gaussian rounds on the same data, at least one.
        delta: δ of the guarantee.
        adjacency: "add-or-remove-one" or "replace-one".

    Returns:
        ε for "pld", "gdp" and "rdp". "gdp" is None if any phase samples: only the limit of many
        rounds is Gaussian then, and it under-reports.

    Raises:
        ValueError: if a value is out of range or a phase is not Gaussian.
    """
    expect(len(phases) > 0, "phases", phases, "at least one")
    for phase in phases:
        expect(phase.mechanism == "gaussian", "mechanism", phase.mechanism, "gaussian")
    check_guarantee(delta=delta, adjacency=adjacency)
    check_delta_of_gaussian(delta)
    drawn = [
        Drawn(phase.mechanism, phase.steps * phase.directions, phase.noise_scale_integer)
        for phase in phases
        if phase.noise_scale_integer is not None
    ]
    repeated = [_losses(phase, adjacency) for phase in phases]
    curve = PrivacyLossCurve(repeated, delta)
    pld = float(integer_epsilon(curve.epsilon, delta, drawn))
    if any(phase.sampling_probability < 1 for phase in phases):
        return {"pld": pld, "gdp": None, "rdp": _sampled_rdp_epsilon(repeated, delta)}
    mu = composed_mu(
        *(mu_of_rounds(phase.noise_multiplier, phase.steps, adjacency) for phase in phases)
    )
    gdp = float(integer_epsilon(lambda at_delta: gdp_epsilon(mu, at_delta), delta, drawn))
    return {"pld": pld, "gdp": gdp, "rdp": rdp_epsilon(mu, delta)}


def _losses(phase: Phase, adjacency: str) -> Repeated:
    noise, probability = float(phase.noise_multiplier), float(phase.sampling_probability)
    if probability == 1:
        # Twice the distance is half the noise.
        return Repeated(GaussianAddOrRemove(noise / SHIFT[adjacency], 1.0), phase.steps)
    pair = GaussianReplace if adjacency == "replace-one" else GaussianAddOrRemove
    return Repeated(pair(noise, probability), phase.steps)


def _sampled_rdp_epsilon(repeated: Sequence[Repeated], delta: float) -> float:
    """From the moments of the privacy losses, the larger of the two directions."""
    log_tail = math.log(_TAIL_SHARE * delta / sum(each.steps for each in repeated))
    found = 0.0
    for direction in (0, 1):
        moments = Moments(
            [Part(moments_of(each.pair, direction, log_tail), each.steps) for each in repeated]
        )
        found = max(found, moments.renyi_epsilon(moments.best_order(delta), delta))
    return found * (1 + 1e-9)


def _expect_mu(mu: float) -> None:
    expect(is_real(mu) and mu > 0, "mu", mu, "above 0 and finite")


def _check_delta(delta: float) -> None:
    expect(is_real(delta) and 0 < delta < 1, "delta", delta, "above 0 and below 1")
