"""Exact metrics of a finished run on data that is public."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hushtune.comparison.folder import holds_comparison, read_header
from hushtune.comparison.settings import LABEL
from hushtune.config import ConfigError, from_values, same_data
from hushtune.evaluation import GivenRows, read_named
from hushtune.models.restore import load_tuned
from hushtune.tasks.metrics import evaluate


def evaluate_on_public(run: Path, data: str, given: GivenRows | None = None) -> dict[str, Any]:
    """The task's metrics, exact, with the number of rows and of those that did not fit whole.

    Args:
        run: a run folder.
        data: rows as the run's task reads them; treated as public.
        given: rows in memory, by a name that `data` has in place of a file.

    Raises:
        ConfigError, DataError, LedgerError: what cannot be used.
    """
    header = read_header(run)
    config = from_values(header["config"])
    if same_data(data, config.data.train):
        raise ConfigError(
            f"--data: {data} is the run's private training data; public data is needed, or "
            "--private and an --epsilon to spend on it."
        )
    rows = read_named(data, config, given or {}, with_units=False)
    task = load_tuned(run, header).task(rows)
    result = {
        **evaluate(task),
        "rows": task.rows,
        "rows_cut": task.rows_cut,
        "data": data,
        "data_is_public": True,
    }
    if holds_comparison(run):
        result["comparison"] = LABEL
    return result
