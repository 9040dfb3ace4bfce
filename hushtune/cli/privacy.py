"""`hushtune privacy RUN [--expect HASH]` and `hushtune privacy --registry FILE`"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hushtune.cli.arguments import parse_flags
from hushtune.guarantee import describe_guarantee, rounded_up
from hushtune.privacy import ledger as ledgers


def run(arguments: Sequence[str]) -> int:
    """Recompute ε from the ledger alone, or add up what a registry holds."""

    def command(
        run: Annotated[str, tyro.conf.Positional] = "",
        expect: str | None = None,
        registry: str | None = None,
        new: bool = False,
        data: str | None = None,
        add: str | None = None,
        epsilon: float | None = None,
        delta: float = 0.0,
        unit: str = "example",
        adjacency: Literal["add-or-remove-one", "replace-one"] = "add-or-remove-one",
        note: str = "",
        json: bool = False,
    ) -> dict[str, Any]:
        """ε of a run, recomputed from its ledger and nothing else; or of all runs on a data set.

        Args:
            run: a run folder, or a ledger.
            expect: the ledger's head as it was noted before, or its first 16 digits or more; shows
                that the end was not cut off since.
            registry: the file that adds up runs: show its entries and totals.
            new: make that file.
            data: show, or add to, this data set only.
            add: enter what was released elsewhere: its kind, such as statistics.
            epsilon: of what is added.
            delta: of what is added.
            unit: of what is added: example, or the column that names a unit.
            adjacency: of what is added.
            note: on what is added.
            json: print one line for machines.
        """
        return locals()

    flags = parse_flags(command, arguments, prog="hushtune privacy")
    if flags["registry"] is not None:
        return _registry(flags)
    if not flags["run"] or flags["new"] or flags["add"] or flags["data"]:
        raise ValueError(
            "expected a run folder, or --registry FILE (which --new, --add, --data need)."
        )
    return _run(Path(flags["run"]), flags["expect"], as_json=flags["json"])


def _registry(flags: dict[str, Any]) -> int:
    from hushtune.cli.registry import show_registry
    from hushtune.privacy import registry as registries

    path = flags["registry"]
    if flags["run"] or flags["expect"] is not None:
        raise ValueError("--registry goes without a run and without --expect.")
    if flags["new"]:
        registries.create(path)
    if flags["add"] is not None:
        if flags["data"] is None or flags["epsilon"] is None:
            raise ValueError("--add needs --data and --epsilon.")
        registries.enter_spending(
            path,
            data=flags["data"],
            what=flags["add"],
            **{name: flags[name] for name in ("epsilon", "delta", "unit", "adjacency", "note")},
        )
    return show_registry(path, data=flags["data"], as_json=flags["json"])


def _run(path: Path, expected: str | None, *, as_json: bool) -> int:
    from hushtune.cli.evaluations import evaluations_of, show_evaluations

    folder = path if path.is_dir() else None
    path = path / "ledger.jsonl" if folder else path
    try:
        record = ledgers.read(path)
        guarantee = describe_guarantee(record)
        if folder:
            guarantee |= evaluations_of(folder, record)
        if expected is not None:
            guarantee |= _compare(record, expected, path)
    except ledgers.LedgerError as error:
        if not as_json:
            raise
        print(json.dumps({"ledger_ok": False, "error": str(error)}))
        return 1
    if as_json:
        print(json.dumps(guarantee | {"ledger_ok": True}))
        return 0
    _show(guarantee)
    if "evaluation" in guarantee:
        show_evaluations(guarantee["evaluation"], guarantee["total"])
    return 0


def _compare(record: ledgers.Record, expected: str, path: Path) -> dict:
    """How the ledger stands to a head hash that was kept elsewhere."""
    if not re.fullmatch("[0-9a-f]{16,64}", expected):
        raise ValueError(f"--expect {expected!r}: expected 16 to 64 hexadecimal digits.")
    added = record.lines_since(expected)
    if added is None:
        raise ledgers.LedgerError(
            f"{path}: no line has the hash {expected}; the end was cut off after that hash was "
            "noted, or this is another ledger."
        )
    return {"expected_head": "extended" if added else "same", "lines_added": added}


def _show(guarantee: dict) -> None:
    from hushtune.report.words import console, guarantee_line, show

    head = {
        "ledger": "verified" + _since(guarantee),
        "ledger head": guarantee["ledger_head"],
    }
    if not guarantee["private"]:
        console.print(
            "[bold red]no privacy[/bold red]: this run clipped nothing and added no noise"
        )
        show("", head)
        return
    line = guarantee_line(
        guarantee["epsilon"], guarantee["delta"], guarantee["unit"], guarantee["adjacency"]
    )
    groups = ", ".join(
        f"{g['units']} units: {rounded_up(g['epsilon'])}" for g in guarantee["group_privacy"]
    )
    show(
        "",
        {
            "claimed": f"[bold]{line}[/bold]",
            "search": _search(guarantee.get("search")),
            "so far": None
            if "search" in guarantee
            else f"ε = {rounded_up(guarantee['epsilon_of_charged_steps'])} after "
            f"{guarantee['steps_charged']} of {guarantee['steps']} charged steps (informational)",
            "released": f"{guarantee['steps_released']} steps, "
            f"{guarantee['directions']} integers each",
            "mechanism": f"{guarantee['mechanism']}, noise multiplier "
            f"{guarantee['noise_multiplier']:.4g}, q = {guarantee['sampling_probability']:.4g}",
            "ε of groups": groups,
            "beside": _beside(guarantee.get("epsilon_beside")),
            "accountant": f"{guarantee['accountant']} {guarantee['accountant_version']}",
            **head,
        },
    )
    console.print("not covered:")
    for sentence in guarantee["exclusions"]:
        console.print(f"  - {sentence}")


def _beside(beside: dict | None) -> str | None:
    """What other accountants say; the stated ε is what counts."""
    if beside is None:
        return None
    gdp = "none where clients sample" if beside["gdp"] is None else rounded_up(beside["gdp"])
    return f"by Gaussian DP {gdp}, by Rényi DP {rounded_up(beside['rdp'])} (informational)"


def _search(search: dict | None) -> str | None:
    if search is None:
        return None
    return (
        f"ε is that of choosing the best of a secret number of runs, {search['expected_runs']:.4g} "
        f"expected ({search['distribution']})"
    )


def _since(guarantee: dict) -> str:
    if "expected_head" not in guarantee:
        return ""
    if guarantee["expected_head"] == "same":
        return ", ends with the expected line"
    return f"; lines added since the expected one: {guarantee['lines_added']}"
