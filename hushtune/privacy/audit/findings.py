"""A finding: one question to the running code, and its answer."""

from __future__ import annotations

from dataclasses import dataclass

#: Probability that one finding fails where the code does what the plan says.
FALSE_ALARM = 1e-6


@dataclass(frozen=True)
class Finding:
    """One check of the audit.

    Attributes:
        name: what was checked.
        passed: whether the code does what the plan says.
        evidence: one line; public numbers only, as the audit sees no others.
    """

    name: str
    passed: bool
    evidence: str


def tested(name: str, p_value: float, evidence: str) -> Finding:
    """A finding of a statistical test that fails with probability `FALSE_ALARM`."""
    return Finding(name, p_value > FALSE_ALARM, f"{evidence} (p = {p_value:.2g})")
