"""The whole pipeline, audited with canaries in one training run (Steinke, Nasr, Jagielski 2023).

The number of guesses is fixed before the run, for each attack in several ways, and the errors of
all of them are shared out evenly, so that the confidence is that of everything together.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hushtune.audit.attacks import attack
from hushtune.audit.canaries import Canaries, make_canaries, toss
from hushtune.audit.guessing import SHARES, Claim, Guesses, findings_of, judge
from hushtune.audit.training import AuditError, train_on_canaries
from hushtune.models.load import hash_tensors
from hushtune.session import Session
from hushtune.zo.estimators import moves
from hushtune.zo.losses import PROBE_CHARGE

#: With fewer, the smallest share is no canary at all.
FEWEST_CANARIES = 20

#: Rows that are timed before the run.
_TIMED_ROWS = 64


@dataclass(frozen=True)
class PipelineAudit:
    """What the canaries showed.

    Attributes:
        epsilon_lower_bound: the largest of all guesses', assuming nothing.
        epsilon_if_gaussian: the same if the run's privacy curve is a Gaussian one.
        epsilon_claimed: the plan's ε for the audited steps; None without privacy.
        delta: δ of all of these.
        confidence: that of all lower bounds together.
        adjacency: what the coins decided.
        steps: audited steps.
        canaries: how many coins were tossed.
        noise_level: the noise that explained the releases best, as a share of the plan's.
        sampling_probability: the q that explained them best: the plan's, or 1.
        guesses: of all attacks.
        findings: (name, passed, evidence).
        seconds: of training and attacks.
    """

    epsilon_lower_bound: float
    epsilon_if_gaussian: float | None
    epsilon_claimed: float | None
    delta: float
    confidence: float
    adjacency: str
    steps: int
    canaries: int
    noise_level: float
    sampling_probability: float
    guesses: list[Guesses]
    findings: list[tuple[str, bool, str]]
    seconds: int

    @property
    def passed(self) -> bool:
        """Whether nothing was found that contradicts the claim."""
        return all(passed for _, passed, _ in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        findings = [
            dict(zip(("name", "passed", "evidence"), finding, strict=True))
            for finding in self.findings
        ]
        return dataclasses.asdict(self) | {"findings": findings, "passed": self.passed}


def audit_pipeline(
    session: Session,
    *,
    canaries: int,
    steps: int | None,
    confidence: float,
    tell: Callable[[str], None] = lambda _: None,
) -> PipelineAudit:
    """Train on canaries, guess their coins, and bound ε from below.

    Args:
        session: the run to audit, in its state before the first step.
        canaries: how many coins are tossed.
        steps: audit so many of the planned steps; None: all.
        confidence: that all bounds together hold with, at least.
        tell: told in a sentence what is about to happen.

    Raises:
        AuditError: if a value is out of range, or what ran was not the audited plan.
    """
    plan, config = session.plan, session.config
    if config.task.kind != "classification" or config.data.second is not None:
        raise AuditError(
            "task.kind: canaries are made for tasks that classify single texts, and this run's "
            "task is another one."
        )
    steps = plan.steps if steps is None else steps
    if not 1 <= steps <= plan.steps:
        raise AuditError(f"--steps: {steps} is not accepted; it must be from 1 to {plan.steps}.")
    if canaries < FEWEST_CANARIES:
        raise AuditError(f"--canaries: {canaries} is too few; at least {FEWEST_CANARIES}.")
    start = time.monotonic()
    made = make_canaries(session, canaries)
    expected = expected_seconds(session, made, steps)
    tell(
        f"{canaries} canaries, {steps} of {plan.steps} steps: about "
        f"{max(1, math.ceil(expected / 60))} min"
    )
    coins = toss(canaries)
    run = train_on_canaries(session, made, coins, steps=steps)
    tell("trained on the canaries that the coins put in; now guessing the coins from the ledger")
    scores = attack(session, made, run.record)
    claim = Claim.of(session, steps)
    significance = (1 - confidence) / (2 * len(SHARES))
    guesses = [
        judge(name, values, coins, share, claim, significance)
        for name, values in (("ledger", scores.ledger), ("model", scores.model))
        for share in SHARES
    ]
    findings = findings_of(guesses, claim)
    if run.moved_sha256 is not None:
        same = run.moved_sha256 == hash_tensors(session.parameters.items())
        findings.append(
            ("the model follows from the ledger", same, f"SHA-256 {run.moved_sha256[:16]}…")
        )
    gaussian = [
        each.epsilon_if_gaussian for each in guesses if each.epsilon_if_gaussian is not None
    ]
    return PipelineAudit(
        epsilon_lower_bound=max(each.epsilon_lower_bound for each in guesses),
        epsilon_if_gaussian=max(gaussian) if gaussian else None,
        epsilon_claimed=claim.epsilon,
        delta=claim.delta,
        confidence=confidence,
        adjacency="replace-one" if made.replaced else "add-or-remove-one",
        steps=steps,
        canaries=canaries,
        noise_level=scores.noise_level,
        sampling_probability=scores.sampling_probability,
        guesses=guesses,
        findings=findings,
        seconds=round(time.monotonic() - start),
    )


def expected_seconds(session: Session, made: Canaries, steps: int) -> float:
    """Seconds of training and replay, from the time that a few canaries take."""
    chosen, plan = session.settings, session.plan
    passes = moves(chosen.estimator, plan.directions, chosen.perturbation_scale)
    task = session.optimised_task(made.rows())
    losses = session.losses(task)
    some = np.arange(min(task.rows, _TIMED_ROWS))
    losses.at(some, passes, charge=PROBE_CHARGE)
    start = time.perf_counter()
    losses.at(some, passes, charge=PROBE_CHARGE)
    each = (time.perf_counter() - start) / len(some)
    trained = plan.sampling_probability * len(made.texts) / (1 if made.replaced else 2)
    return steps * each * (task.rows + trained)
