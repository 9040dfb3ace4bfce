"""`hushtune privacy --registry FILE`: what was spent on each data set, all runs together."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

from hushtune.privacy import registry as registries
from hushtune.privacy.registry import Entry
from hushtune.privacy.totals import Total, totals


def show_registry(path: str, *, data: str | None, as_json: bool) -> int:
    """Print entries and totals, of one data set or of all."""
    contents = registries.read(path)
    entries = [entry for entry in contents.entries if data in (None, entry.data)]
    if data is not None and not entries:
        raise ValueError(f"{path}: no entry for the data set {data!r}.")
    sums = totals(entries)
    if as_json:
        result = {
            "registry_ok": True,
            "entries": [_plain(entry) for entry in entries],
            "totals": [dataclasses.asdict(total) for total in sums],
            "registry_head": contents.head,
        }
        print(json.dumps(result))
    else:
        _print(entries, sums, contents.head)
    return 0


def _plain(entry: Entry) -> dict:
    names = ("data", "what", "where", "run", "unit", "adjacency", "delta", "epsilon")
    values = {name: getattr(entry, name) for name in names}
    return values | {"epsilon": None if math.isinf(entry.epsilon) else entry.epsilon}


def _print(entries: Sequence[Entry], sums: Sequence[Total], head: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from hushtune.guarantee import rounded_up
    from hushtune.report.words import console

    for data in dict.fromkeys(entry.data for entry in entries):
        table = Table(title=f"[bold]{escape(data)}[/bold]", title_justify="left", box=None)
        for name in ("what", "where", "ε", "δ", "unit", "adjacency"):
            table.add_column(name, overflow="fold", header_style="dim")
        for entry in entries:
            if entry.data == data:
                epsilon = "none" if math.isinf(entry.epsilon) else rounded_up(entry.epsilon)
                words = (entry.what, entry.where, epsilon, rounded_up(entry.delta))
                table.add_row(*map(escape, (*words, entry.unit, entry.adjacency)))
        console.print(table)
        for total in sums:
            if total.data == data:
                console.print(_in_words(total))
    console.print(f"registry head  {head}")
    console.print("Claimed by the registry: what never passed it is not in these totals.")


def _in_words(total: Total) -> str:
    from rich.markup import escape

    from hushtune.guarantee import rounded_up
    from hushtune.report.words import guarantee_line

    terms = escape(f"per {total.unit}, {total.adjacency}")
    if total.epsilon is None or total.epsilon_if_fixed_beforehand is None:
        return f"together, {terms}: [bold red]no guarantee[/bold red], {escape(total.because)}"
    line = guarantee_line(total.epsilon, total.delta, total.unit, total.adjacency)
    fixed = rounded_up(total.epsilon_if_fixed_beforehand)
    return f"together: [bold]{escape(line)}[/bold] (ε = {fixed} if all of it was fixed beforehand)"
