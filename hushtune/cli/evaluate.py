"""`hushtune eval RUN --data FILE [--json]`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hushtune.cli.arguments import parse_flags


def run(arguments: Sequence[str]) -> int:
    """Print the metrics of a run's model on public data."""

    def command(
        run: Annotated[str, tyro.conf.Positional], data: str, json: bool = False
    ) -> tuple[str, str, bool]:
        """Metrics of a run's model. The data is treated as PUBLIC: the numbers are exact.

        Args:
            run: a run folder.
            data: rows as the run's task reads them, in the run's columns.
            json: print one line for machines.
        """
        return run, data, json

    folder, path, as_json = parse_flags(command, arguments, prog="hushtune eval")

    from hushtune.comparison.folder import holds_comparison, read_header
    from hushtune.comparison.settings import LABEL
    from hushtune.config import ConfigError, from_values, same_data
    from hushtune.models.restore import load_tuned
    from hushtune.report.words import metric_text, show
    from hushtune.tasks.data import read_labelled_text

    comparison = holds_comparison(Path(folder))
    header = read_header(Path(folder))
    config = from_values(header["config"])
    if same_data(path, config.data.train):
        raise ConfigError(
            f"--data: {path} is the run's private training data; public data is needed."
        )
    rows = read_labelled_text(path, config.data, config.task, with_units=False)
    metrics = load_tuned(folder, header).evaluate(rows)
    result = {
        **metrics,
        "rows": len(rows.texts),
        "data": path,
        "data_is_public": True,
    }
    if comparison:
        result["comparison"] = LABEL
    if as_json:
        print(json.dumps(result))
    else:
        show(
            "",
            {
                **{name.replace("_", " "): metric_text(name, metrics[name]) for name in metrics},
                "rows": len(rows.texts),
                "data": f"{path}, treated as public",
                "[bold red]comparison[/bold red]": LABEL if comparison else None,
            },
        )
    return 0
