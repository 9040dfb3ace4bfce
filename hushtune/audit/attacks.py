"""Two attacks that guess the coins from what a run publishes; neither sees a coin.

*Through the ledger.* Model, configuration, directions and releases are public. The attacker replays
the run step by step, computes at each step's parameters what each canary would add to the release
if it was there and sampled, clipped by the run's own code, and looks for the coins that explain the
releases (`hushtune.audit.filters`). Neither noise nor sampling is taken on trust: several amounts
of noise are tried, with q and with everybody in every step, and what fits the releases best is
used.

*Through the final model.* By how much training has lowered a canary's loss.

An attack may be anything at all: it makes a lower bound large or small, never wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hushtune.audit.canaries import Canaries
from hushtune.audit.filters import MatchedFilter, Regression
from hushtune.plain import PlainPlan
from hushtune.privacy import boundary
from hushtune.privacy.ledger import Record
from hushtune.session import Session
from hushtune.settling import Plan
from hushtune.zo.estimators import Move, moves, slopes

#: Noise that is tried, as shares of what the plan says.
_NOISE_LEVELS = (1.0, 1 / 4, 1 / 16, 1 / 256)

#: Evaluates a loss where the parameters are.
_STAY = [Move(0, 0.0)]


@dataclass(frozen=True)
class Scores:
    """What the attacks found; larger scores mean "in".

    Attributes:
        ledger: (canaries,) float64 log-odds that a canary is in, from the releases.
        model: (canaries,) float64, by how much its loss fell from base to final model.
        noise_level: the noise that explains the releases best, as a share of the plan's.
        sampling_probability: the q that explains them best: the plan's, or 1.
    """

    ledger: np.ndarray
    model: np.ndarray
    noise_level: float
    sampling_probability: float


def attack(session: Session, canaries: Canaries, record: Record) -> Scores:
    """Replay a ledger on the session's model and score every canary.

    Args:
        session: the run in its state before the first step; its parameters end as the run's did.
        canaries: all canaries, whichever side their coins fell.
        record: the ledger of the run on some of them.
    """
    task = session.optimised_task(canaries.rows())
    losses, rows = session.losses(task), np.arange(task.rows)
    chosen, plan = session.settings, session.plan
    passes = moves(chosen.estimator, plan.directions, chosen.perturbation_scale)
    update = session.update()
    at_base = losses.at(rows, _STAY, charge=0)
    filters: list[MatchedFilter | Regression] = []
    noise = 0.0
    for charge, released in record.releases.items():
        values = losses.at(rows, passes, charge=charge)
        vectors = _contributions(slopes(chosen.estimator, values, chosen.perturbation_scale), plan)
        if not filters:
            # Where the plan has no noise, what one canary adds is the measure.
            noise = _noise(plan) or math.sqrt(float((vectors**2).mean())) or 1.0
            filters = _filters(canaries, plan, noise)
        for each in filters:
            each.observe(np.array(released, dtype=np.float64), *_sides(vectors, canaries))
        update.apply(charge, released)
    heads, tails = _sides(at_base - losses.at(rows, _STAY, charge=0), canaries)
    found = [explanation for each in filters for explanation in each.explanations()]
    best = max(found, key=lambda each: each.log_likelihood)
    return Scores(best.scores, (heads - tails)[:, 0], best.noise / noise, best.probability)


def _filters(canaries: Canaries, plan: Plan, noise: float) -> list[MatchedFilter | Regression]:
    count, levels = len(canaries.texts), [noise * level for level in _NOISE_LEVELS]
    sampled = [MatchedFilter(count, plan.sampling_probability, level) for level in levels]
    return [*sampled, Regression(count, levels)]


def _noise(plan: Plan) -> float:
    """Standard deviation of the noise on a released integer."""
    return plan.noise_of_mean * plan.expected_units / plan.grid


def _contributions(scalars: np.ndarray, plan: Plan) -> np.ndarray:
    """(rows, K) float64: what each row, a unit of its own, adds to a release."""
    if isinstance(plan, PlainPlan):
        return np.nan_to_num(scalars, posinf=0.0, neginf=0.0) / plan.grid
    per_unit = boundary.combine_rows(scalars, np.arange(len(scalars)), plan.combine)
    return boundary.clip_to_grid(per_unit, plan).astype(np.float64)


def _sides(values: np.ndarray, canaries: Canaries) -> tuple[np.ndarray, np.ndarray]:
    """Values of the rows that the coins' heads stand for, and of tails; zero for no row."""
    heads = values[: len(canaries.texts)]
    tails = values[len(canaries.texts) :] if canaries.replaced else np.zeros_like(heads)
    return heads, tails
