"""What private evaluations released and what they cost, from their ledgers alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hushtune.evaluating.ratios import CONFIDENCE, Ratio, denominator, ratios
from hushtune.privacy import PrivacyPlan, accounting
from hushtune.privacy.evaluations import Call, Evaluations
from hushtune.privacy.record import LedgerError, Record
from hushtune.privacy.registry import Entry
from hushtune.privacy.totals import Total, totals
from hushtune.tasks.measures import as_metric

_NO_RATIO = "the noise is too large for so little data; it takes more units or a larger ε"

#: What the guarantee of an evaluation does not cover.
EXCLUSIONS = (
    "Errors and intervals are of the noise alone: that the data is a sample is not in them.",
    "Whoever runs the evaluation, and the machine it runs on, are trusted with the data.",
    "Running time and memory, as somebody on the machine sees them: they grow with the data.",
    "The name of the data is in the ledger as it was given.",
    "Other releases from the same data, by other runs too, add to ε; a registry adds them up.",
    "This is claimed by the ledgers: they cannot show that the last of them was not removed, that "
    "a folder was not copied and evaluated twice, or that noise was added.",
)


def describe_call(call: Call) -> dict[str, Any]:
    """One evaluation: its guarantee and, if it came that far, metrics with errors from the noise.

    A metric is None where the noise leaves nothing of it, and `no_ratio` says so.
    """
    plan, facts = call.plan, call.facts
    described = {
        "call": int(call.path.stem),
        "data": facts.data,
        "disjoint": facts.disjoint,
        "population": facts.population,
        "charged": bool(call.record.charges),
        "released": call.released is not None,
        "epsilon": plan.epsilon(),
        "delta": plan.delta,
        "unit": plan.unit,
        "adjacency": plan.adjacency,
        "mechanism": plan.mechanism,
        "noise_multiplier": plan.noise_multiplier,
        "limit": facts.limit,
        "largest": facts.largest,
    }
    if call.released is None:
        return described
    noise = plan.noise_scale * plan.grid
    released = np.array(call.released, dtype=np.float64) * plan.grid
    total, error = denominator(released, noise, most=facts.limit)
    found = ratios(released, noise)
    each = [None] * len(facts.names) if found is None else found
    for name, ratio in zip(facts.names, each, strict=True):
        described |= _metric(name, ratio, facts.largest)
    return described | {
        "no_ratio": _NO_RATIO if found is None else None,
        "confidence": CONFIDENCE,
        f"noised_{facts.counted}": total,
        f"noised_{facts.counted}_standard_error": error,
    }


def describe_evaluations(found: Evaluations) -> dict[str, Any] | None:
    """What all evaluations of a run cost: the budget; None if nothing was charged."""
    budget = found.budget
    if budget is None:
        return None
    return {
        **dataclasses.asdict(budget),
        "epsilon_of_charged_calls": found.spent,
        "calls_charged": len(found.charged),
        "calls_released": sum(call.released is not None for call in found.calls),
        "disjoint": all(call.facts.disjoint for call in found.charged),
        "head": found.head,
        "accountant": accounting.ACCOUNTANT,
        "accountant_version": accounting.ACCOUNTANT_VERSION,
        "exclusions": list(EXCLUSIONS),
    }


def describe_total(training: Record, found: Evaluations) -> dict[str, Any] | None:
    """What training and evaluations cost together, by unit and adjacency; None without the latter.

    Raises:
        LedgerError: if it was not this run's model that was evaluated.
    """
    evaluated = describe_evaluations(found)
    if evaluated is None:
        return None
    for call in found.calls:
        if training.lines_since(call.facts.model) is None:
            raise LedgerError(f"{call.path}, line 1: it was the model of another run.")
    unit, adjacency, disjoint = (evaluated[name] for name in ("unit", "adjacency", "disjoint"))
    spent = (evaluated["epsilon"], evaluated["delta"])
    entries = [
        _training(training, unit, adjacency),
        Entry("", "evaluation", "", unit, adjacency, spent=spent),
    ]
    names = ("unit", "adjacency", "epsilon", "delta", "epsilon_if_fixed_beforehand", "because")
    sums = [_larger(*entries)] if disjoint else totals(entries)
    return {
        "assuming": "no unit is in both" if disjoint else "the same units are in both",
        "totals": [{name: getattr(each, name) for name in names} for each in sums],
    }


def _training(record: Record, unit: str, adjacency: str) -> Entry:
    if not record.header["private"]:
        return Entry("", "training without privacy", "", unit, adjacency)
    plan = PrivacyPlan.from_json(record.header["plan"])
    return Entry("", "training", "", plan.unit, plan.adjacency, plan)


def _larger(one: Entry, other: Entry) -> Total:
    """What either costs at most, where nobody is in both."""
    terms = ("", one.unit, one.adjacency, 2)
    if (one.unit, one.adjacency) != (other.unit, other.adjacency):
        return Total(*terms, because="training and evaluation have different units or adjacencies")
    if one.plan is None:
        return Total(*terms, because=f"{one.what} hides nothing")
    return Total(*terms, max(one.epsilon, other.epsilon), max(one.delta, other.delta))


def _metric(name: str, ratio: Ratio | None, largest: float) -> dict[str, Any]:
    """A metric and its error, from a ratio whose 1 stands for `largest`."""
    if ratio is None:
        return dict.fromkeys((name, f"{name}_standard_error", f"{name}_interval"))
    value = as_metric(name, ratio.value * largest)
    # The derivative of exp is exp.
    steepness = value if name == "perplexity" else 1.0
    return {
        name: value,
        f"{name}_standard_error": ratio.standard_error * largest * steepness,
        f"{name}_interval": [as_metric(name, end * largest) for end in ratio.interval],
    }
