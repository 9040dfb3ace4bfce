"""Guesses, what a plan claims of them, and whether the two agree."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from hushtune.audit import bounds
from hushtune.config import resolved_delta
from hushtune.plain import PlainPlan
from hushtune.privacy import PrivacyPlan
from hushtune.session import Session

#: Guesses, as shares of all canaries: (those with the largest scores, guessed to be in; those with
#: the smallest, guessed to be out).
SHARES = ((0.05, 0.0), (0.05, 0.05), (0.2, 0.2), (0.5, 0.5))

#: Where the claimed privacy curve is looked at; any set is sound, a fine one is tight.
_DELTAS = np.concatenate([np.geomspace(1e-7, 1e-2, 40), np.linspace(0.0125, 0.9, 72)])


@dataclass(frozen=True)
class Guesses:
    """One attack's guesses and what follows from them.

    Attributes:
        attack: "ledger" or "model".
        guesses: r.
        correct: v.
        epsilon_lower_bound: at δ, assuming nothing.
        epsilon_if_gaussian: at δ, if the run's privacy curve is a Gaussian one; None without noise.
        probability_if_claimed: of so many right guesses, at most, if the claim holds; None without.
        significance: probability of an error that this one may make.
    """

    attack: str
    guesses: int
    correct: int
    epsilon_lower_bound: float
    epsilon_if_gaussian: float | None
    probability_if_claimed: float | None
    significance: float


@dataclass(frozen=True)
class Claim:
    """What a plan claims of its first steps.

    Attributes:
        epsilon: ε at `delta`; None without privacy.
        delta: δ.
        curve: the whole privacy curve; None without privacy.
        gaussian: whether the noise is Gaussian.
    """

    epsilon: float | None
    delta: float
    curve: bounds.LeastProbability | None
    gaussian: bool

    @classmethod
    def of(cls, session: Session, steps: int) -> Claim:
        """The claim for `steps` steps of the session's plan."""
        plan = session.plan
        if isinstance(plan, PlainPlan):
            delta = resolved_delta(session.config.privacy, plan.population)
            return cls(None, delta, None, gaussian=False)
        plan = plan.alone  # a search's ε is of many runs, and only one is audited
        epsilon, gaussian = plan.epsilon(steps), plan.mechanism == "gaussian"
        points = [(epsilon, plan.delta)]
        if gaussian:
            # A Laplace plan may have no other δ that its accountant has a bound for.
            points += [_point(plan, steps, float(delta)) for delta in _DELTAS]
        return cls(epsilon, plan.delta, bounds.curve_of_points(points), gaussian)

    def probability(self, canaries: int, guesses: int, correct: int) -> float | None:
        """At most this, of so many right guesses, if the claim holds."""
        if self.epsilon is None or self.curve is None:
            return None
        return min(
            bounds.probability_of_guesses(
                canaries, guesses, correct, epsilon=self.epsilon, delta=self.delta
            ),
            bounds.probability_under_curve(canaries, guesses, correct, self.curve),
        )


def _point(plan: PrivacyPlan, steps: int, delta: float) -> tuple[float, float]:
    return dataclasses.replace(plan, delta=delta).epsilon(steps), delta


def judge(
    name: str,
    scores: np.ndarray,
    coins: np.ndarray,
    share: tuple[float, float],
    claim: Claim,
    significance: float,
) -> Guesses:
    """Guess the coins of the largest and smallest scores, and see how many are right."""
    canaries = len(coins)
    top, bottom = (round(part * canaries) for part in share)
    order = np.argsort(np.nan_to_num(scores), kind="stable")
    correct = int(coins[order[canaries - top :]].sum() + (~coins[order[:bottom]]).sum())
    counts = (canaries, top + bottom, correct)
    return Guesses(
        attack=name,
        guesses=top + bottom,
        correct=correct,
        epsilon_lower_bound=bounds.epsilon_lower_bound(
            *counts, delta=claim.delta, significance=significance
        ),
        epsilon_if_gaussian=bounds.gaussian_epsilon_lower_bound(
            *counts, delta=claim.delta, significance=significance
        )
        if claim.gaussian
        else None,
        probability_if_claimed=claim.probability(*counts),
        significance=significance,
    )


def findings_of(guesses: list[Guesses], claim: Claim) -> list[tuple[str, bool, str]]:
    """Whether any attack guessed better than the claim allows."""
    if claim.epsilon is None:
        return []
    findings = []
    for name in ("ledger", "model"):
        mine = [each for each in guesses if each.attack == name]
        best = max(mine, key=lambda each: each.epsilon_lower_bound)
        findings.append(
            (
                f"ε through the {name}",
                best.epsilon_lower_bound <= claim.epsilon,
                f"at least {best.epsilon_lower_bound:.3g}, claimed {claim.epsilon:.4g}",
            )
        )
        rarest = min(mine, key=lambda each: each.probability_if_claimed or 0.0)
        probability = rarest.probability_if_claimed or 0.0
        findings.append(
            (
                f"privacy curve through the {name}",
                probability > rarest.significance,
                f"{rarest.correct} of {rarest.guesses} guesses right: probability at most "
                f"{probability:.2g} under the claim (alarm at {rarest.significance:.2g})",
            )
        )
    return findings
