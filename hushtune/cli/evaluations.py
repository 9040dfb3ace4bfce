"""`hushtune privacy RUN`, of a run that was evaluated on private data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hushtune.evaluating.guarantee import describe_call, describe_evaluations, describe_total
from hushtune.privacy import evaluations
from hushtune.privacy.record import Record


def evaluations_of(run: Path, training: Record) -> dict[str, Any]:
    """What private evaluations cost, and the total with the training; nothing without any.

    Raises:
        LedgerError: for evaluations that do not verify.
    """
    found = evaluations.read(run)
    spent = describe_evaluations(found)
    if spent is None:
        return {}
    calls = [describe_call(call) for call in found.calls]
    return {"evaluation": spent | {"calls": calls}, "total": describe_total(training, found)}


def show_evaluations(spent: Mapping[str, Any], total: Mapping[str, Any]) -> None:
    """Print what `evaluations_of` found."""
    from hushtune.guarantee import rounded_up
    from hushtune.report.words import console, guarantee_line, show

    terms = (spent[name] for name in ("epsilon", "delta", "unit", "adjacency"))
    rows = {
        "evaluations": f"[bold]{guarantee_line(*terms)}[/bold], for all calls",
        "so far": f"ε = {rounded_up(spent['epsilon_of_charged_calls'])} after "
        f"{spent['calls_charged']} charged calls (informational)",
        "last ledger head": spent["head"],
    }
    for each in total["totals"]:
        terms = (each[name] for name in ("epsilon", "delta", "unit", "adjacency"))
        several = f", {each['unit']}, {each['adjacency']}" if len(total["totals"]) > 1 else ""
        rows[f"with training{several}"] = (
            f"nothing can be guaranteed: {each['because']}"
            if each["epsilon"] is None
            else f"[bold]{guarantee_line(*terms)}[/bold], if {total['assuming']}"
        )
    show("", rows)
    console.print("not covered by evaluations:")
    for sentence in spent["exclusions"]:
        console.print(f"  - {sentence}")
