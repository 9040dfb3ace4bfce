"""`hushtune federate run.yaml [--app DIR] [flags]`"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from hushtune.cli.arguments import parse_run


def run(arguments: Sequence[str]) -> int:
    """Simulate a federated run on this machine, or write its Flower app for a SuperLink."""
    arguments, app = _app(list(arguments))
    config, as_json = parse_run("federate", arguments, also=" [--app DIR]")
    from hushtune.config import ConfigError
    from hushtune.config.federated_checks import check_federated

    check_federated(config)
    if importlib.util.find_spec("flwr") is None:
        raise ConfigError("hushtune federate needs Flower: install hushtune[federated].")
    if app is not None:
        from hushtune.federated.apps import write_app

        write_app(config, Path(app))
        print(f"{app}: flwr run {app}")
        return 0
    from hushtune.federated.simulation import simulate
    from hushtune.report import terminal
    from hushtune.report.words import cut_line

    summary = simulate(config, terminal.FederatedProgress(quiet=as_json))
    if as_json:
        print(json.dumps(summary))
        return 0
    terminal.show(
        "",
        {
            "cut": cut_line(summary.get("evaluation_rows_cut")),
            "clients": summary["clients"],
            "rounds": f"{summary['steps']}, of which {summary['rounds_skipped']} were skipped",
            "a round": f"{summary['bytes_to_clients']} bytes to a client, "
            f"{summary['bytes_from_clients']} back"
            if "bytes_to_clients" in summary
            else None,
            "seconds": summary["seconds"],
            "run folder": config.output,
            "ledger head": summary["ledger_head"],
        },
    )
    return 0


def _app(arguments: list[str]) -> tuple[list[str], str | None]:
    """The arguments without `--app DIR`, and DIR."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--app":
            used = 1 if equals else 2
            if not equals and place + 1 == len(arguments):
                raise ValueError("--app: expected the folder to write.")
            folder = value if equals else arguments[place + 1]
            return arguments[:place] + arguments[place + used :], folder
    return arguments, None
