"""What every command prints with; needs no model code."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from hushtune.guarantee import rounded_up

console: Console = Console(highlight=False)


def show(title: str, rows: Mapping[str, object]) -> None:
    """Two columns: what, and its value; rows whose value is None are left out."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, str(value))
    console.print(table)


def metric_text(name: str, value: float) -> str:
    """A metric's value: a share in percent, a perplexity as a number."""
    return f"{value:.4g}" if name == "perplexity" else f"{value:.1%}"


def cut_line(rows: int | None) -> str | None:
    """How many public evaluation rows did not fit; nothing where all did."""
    return f"{rows} evaluation rows are longer than data.max_length" if rows else None


def guarantee_line(epsilon: float, delta: float, unit: str, adjacency: str) -> str:
    """ε with its terms, in one line; ε and δ are rounded up."""
    pure = "" if delta else " (pure)"
    return f"ε = {rounded_up(epsilon)}{pure}, δ = {rounded_up(delta)}, per {unit}, {adjacency}"
