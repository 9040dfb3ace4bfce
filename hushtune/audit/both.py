"""Both parts of an audit, the mechanism alone and the whole pipeline, as one result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hushtune.audit.pipeline import PipelineAudit, audit_pipeline
from hushtune.audit.training import AuditError
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.audit import MechanismAudit, audit_mechanism
from hushtune.session import Session


def audit(
    session: Session,
    *,
    canaries: int,
    steps: int | None,
    confidence: float,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """An audit of a run's code, as plain values for `audit.json`.

    Where there are two parts each may err with half the probability, so that `confidence` is that
    of the whole. `epsilon_lower_bound` is the largest that needs no assumption. A run without
    privacy claims nothing and has no mechanism to audit: its canaries show what it memorises.

    Args:
        session: the run, in its state before the first step; its parameters are moved.
        canaries: how many canaries.
        steps: how many of the planned steps the canaries are trained for; None: all.
        confidence: of all lower bounds together.
        tell: told in a sentence what is about to happen.

    Raises:
        AuditError: if a value is out of range, or what ran was not the audited plan.
    """
    if not 0.5 <= confidence < 1:
        raise AuditError(
            f"--confidence: {confidence} is not accepted; it must be from 0.5 to below 1."
        )
    plan = session.plan
    share = 1 - (1 - confidence) / 2 if isinstance(plan, PrivacyPlan) else confidence
    pipeline = audit_pipeline(session, canaries=canaries, steps=steps, confidence=share, tell=tell)
    if not isinstance(plan, PrivacyPlan):
        return _result(None, None, pipeline, confidence)
    tell("auditing the mechanism on neighbours made to tell it apart")
    plan = plan.alone
    return _result(plan, audit_mechanism(plan, confidence=share), pipeline, confidence)


def _result(
    plan: PrivacyPlan | None,
    mechanism: MechanismAudit | None,
    pipeline: PipelineAudit,
    confidence: float,
) -> dict[str, Any]:
    failures = [
        f"pipeline: {name}: {evidence}"
        for name, passed, evidence in pipeline.findings
        if not passed
    ]
    lower_bounds = [pipeline.epsilon_lower_bound]
    if mechanism is not None:
        lower_bounds.append(mechanism.epsilon_lower_bound)
        failures += _failures_of_mechanism(mechanism)
    return {
        "epsilon_lower_bound": max(lower_bounds),
        "confidence": confidence,
        "epsilon_claimed": None if plan is None else plan.epsilon(),
        "delta": pipeline.delta,
        "adjacency": pipeline.adjacency,
        "passed": not failures,
        "failures": failures,
        "mechanism": None if mechanism is None else mechanism.to_json(),
        "pipeline": pipeline.to_json(),
    }


def _failures_of_mechanism(mechanism: MechanismAudit) -> list[str]:
    failures = [
        f"mechanism: {finding.name}: {finding.evidence}"
        for finding in mechanism.findings
        if not finding.passed
    ]
    if mechanism.epsilon_lower_bound > mechanism.epsilon_claimed:
        failures.append(
            f"mechanism: ε is at least {mechanism.epsilon_lower_bound:.4g}, claimed "
            f"{mechanism.epsilon_claimed:.4g}"
        )
    return failures
