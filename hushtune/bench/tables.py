"""Results as tables for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Row = Mapping[str, Any]

#: Of a page; the terminal shows the short ones.
_STEP_COLUMNS = (
    "case",
    "s a step",
    "s of its forward passes",
    "ratio",
    "of processor time",
    "not forward",
    "peak MiB",
    "inference MiB",
    "÷ inference + largest",
    "the same above base",
)
_SHORT = {0: "case", 1: "s a step", 2: "forward", 3: "ratio", 4: "by cpu", 6: "MiB", 8: "÷ infer."}

_KERNEL_COLUMNS = (
    "format",
    "copy",
    "θ + 1",
    "θ + λz",
    "÷ copy",
    "÷ (θ + 1)",
    "axpy",
    "update",
    "÷ axpy",
    "of 64, each",
)


def step_cells(row: Row) -> list[str]:
    """A row's cells; those of a skipped case say why."""
    if "skipped" in row:
        return [row["case"], f"skipped: {row['skipped']}", *[""] * (len(_STEP_COLUMNS) - 2)]
    return [
        row["case"],
        f"{row['seconds_per_step']:.3g}",
        f"{row['forward_seconds']:.3g}",
        f"{row['ratio_to_forwards']:.3f}",
        f"{row['processor_ratio']:.3f}" if row["processor_ratio"] else "",
        f"{max(row['not_forward_share'], 0.0):.1%}",
        f"{row['peak_mib']:.0f}",
        f"{row['inference_peak_mib']:.0f}",
        f"{row['memory_ratio']:.3f}",
        f"{row['memory_ratio_above_base']:.3f}",
    ]


def kernel_cells(row: Row) -> list[str]:
    """Nanoseconds a parameter, and ratios."""
    names = ("copy", "add", "write", "write_to_copy", "write_to_add")
    names += ("axpy", "move", "move_to_axpy", "move_many")
    return [row["dtype"], *(f"{row[name]:.3f}" for name in names)]


def step_table(result: Mapping[str, Any]) -> Table:
    """What steps cost, in 80 columns."""
    machine = result["machine"]
    title = f"{machine.get('gpu', machine['processor'])}, {machine['threads']} threads"
    rows = ([cells[place] for place in _SHORT] for cells in map(step_cells, result["rows"]))
    return _table(title, list(_SHORT.values()), rows)


def kernel_table(result: Mapping[str, Any]) -> Table:
    """What a pass over the parameters costs."""
    title = "nanoseconds a parameter"
    return _table(title, _KERNEL_COLUMNS, map(kernel_cells, result["kernels"]))


def step_markdown(rows: Sequence[Row]) -> str:
    """`step_table` in Markdown."""
    return _markdown(_STEP_COLUMNS, map(step_cells, rows))


def kernel_markdown(rows: Sequence[Row]) -> str:
    """`kernel_table` in Markdown."""
    return _markdown(_KERNEL_COLUMNS, map(kernel_cells, rows))


def device_markdown(rows: Sequence[Row]) -> str:
    """How much of the device's bandwidth and arithmetic steps use."""
    columns = ("case", "share of bandwidth", "share of matrix throughput", "GiB/s", "10^12 op/s")
    cells = (
        [
            row["case"],
            f"{row['bandwidth_share']:.1%}",
            f"{row['arithmetic_share']:.1%}",
            f"{row['gib_per_second']:.0f}",
            f"{row['tera_operations']:.2f}",
        ]
        for row in rows
        if "bandwidth_share" in row
    )
    return _markdown(columns, cells)


def drift_markdown(rows: Sequence[Row]) -> str:
    """How many parameters are not where they were after a look along one direction."""
    columns = ("case", "parameters that changed", "largest change")
    cells = (
        [row["case"], f"{row['changed_share']:.1%}", f"{row['largest_change']:.2g}"]
        for row in rows
        if "changed_share" in row and row["directions"] == 1
    )
    return _markdown(columns, cells)


def _table(title: str, columns: Sequence[str], rows: Any) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    for cells in rows:
        table.add_row(*cells)
    return table


def _markdown(columns: Sequence[str], rows: Any) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join(lines)
