"""The end of a run folder: model, guarantee and summary, written once a ledger is complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hushtune.evaluation import named
from hushtune.files import write_json
from hushtune.guarantee import describe_guarantee
from hushtune.models.load import hash_tensors
from hushtune.models.save import save_model
from hushtune.opening import RunSession
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger
from hushtune.report.card import model_card

LEDGER = "ledger.jsonl"
_SUMMARY = "summary.json"


def summary_of(folder: Path, ledger: Ledger) -> dict[str, Any] | None:
    """The summary of a run that is complete; None of one that is not."""
    summary = folder / _SUMMARY
    if ledger.charges < ledger.header["steps"] or not summary.exists():
        return None
    return json.loads(summary.read_text(encoding="utf-8"))


def write_end(
    session: RunSession,
    folder: Path,
    *,
    zero_shot: Mapping[str, float],
    final: Mapping[str, float],
    rows_cut: int | None,
    also: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `model/` or `adapter/`, `privacy.json` and `summary.json`; returns the summary.

    Args:
        session: after the last step of the ledger in `folder`.
        zero_shot, final: metrics on public evaluation data, before and after.
        rows_cut: evaluation rows of which a part did not fit; None where there were none.
        also: what else the summary says.
    """
    save_model(session, folder, card=model_card(session.header, tune=session.tune))
    guarantee = describe_guarantee(ledgers.read(folder / LEDGER))
    write_json(folder / "privacy.json", guarantee)
    trained = "private" if session.header["private"] else "non_private"
    summary = {
        **named("zero_shot", zero_shot),
        **named(trained, final),
        "evaluation_rows_cut": rows_cut,
        "epsilon": guarantee["epsilon"],
        "delta": guarantee["delta"],
        "steps": session.plan.steps,
        "ledger_head": guarantee["ledger_head"],
        **also,
        "moved_sha256": hash_tensors(session.parameters.items()),
    }
    write_json(folder / _SUMMARY, summary)
    return summary
