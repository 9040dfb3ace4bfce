"""`hushtune privacy RUN [--json]`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hushtune.cli.arguments import parse_flags
from hushtune.guarantee import describe_guarantee
from hushtune.privacy import ledger as ledgers


def run(arguments: Sequence[str]) -> int:
    """Recompute ε from the ledger alone."""

    def command(run: Annotated[str, tyro.conf.Positional], json: bool = False) -> tuple[str, bool]:
        """ε of a run, recomputed from its ledger and nothing else.

        Args:
            run: a run folder, or a ledger.
            json: print one line for machines.
        """
        return run, json

    folder, as_json = parse_flags(command, arguments, prog="hushtune privacy")
    path = Path(folder)
    path = path / "ledger.jsonl" if path.is_dir() else path
    try:
        guarantee = describe_guarantee(ledgers.read(path))
    except ledgers.LedgerError as error:
        if not as_json:
            raise
        print(json.dumps({"ledger_ok": False, "error": str(error)}))
        return 1
    if as_json:
        print(json.dumps(guarantee | {"ledger_ok": True}))
        return 0
    _show(guarantee)
    return 0


def _show(guarantee: dict) -> None:
    from hushtune.report.words import console, guarantee_line, show

    if not guarantee["private"]:
        console.print(
            "[bold red]no privacy[/bold red]: this run clipped nothing and added no noise"
        )
        return
    line = guarantee_line(
        guarantee["epsilon"], guarantee["delta"], guarantee["unit"], guarantee["adjacency"]
    )
    groups = ", ".join(
        f"{g['units']} units: {g['epsilon']:.4g}" for g in guarantee["group_privacy"]
    )
    show(
        "",
        {
            "claimed": f"[bold]{line}[/bold]",
            "so far": f"ε = {guarantee['epsilon_of_charged_steps']:.4g} after "
            f"{guarantee['steps_charged']} of {guarantee['steps']} charged steps (informational)",
            "released": f"{guarantee['steps_released']} steps, "
            f"{guarantee['directions']} integers each",
            "mechanism": f"{guarantee['mechanism']}, noise multiplier "
            f"{guarantee['noise_multiplier']:.4g}, q = {guarantee['sampling_probability']:.4g}",
            "ε of groups": groups,
            "accountant": f"{guarantee['accountant']} {guarantee['accountant_version']}",
            "ledger": f"verified, head {guarantee['ledger_head'][:16]}…",
        },
    )
    console.print("not covered:")
    for sentence in guarantee["exclusions"]:
        console.print(f"  - {sentence}")
