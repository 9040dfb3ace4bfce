"""`hushtune federate run.yaml [flags]`"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence

from hushtune.cli.arguments import parse_run


def run(arguments: Sequence[str]) -> int:
    """Simulate a federated run on this machine and print the summary."""
    config, as_json = parse_run("federate", arguments)
    from hushtune.config import ConfigError
    from hushtune.config.federated_checks import check_federated

    check_federated(config)
    if importlib.util.find_spec("flwr") is None:
        raise ConfigError("hushtune federate needs Flower: install hushtune[federated].")
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
