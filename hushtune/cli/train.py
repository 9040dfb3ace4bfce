"""`hushtune train [run.yaml] [flags]`"""

from __future__ import annotations

import json
from collections.abc import Sequence

from hushtune.cli.arguments import parse_run
from hushtune.cli.residue import keep_memory_to_itself


def run(arguments: Sequence[str]) -> int:
    """Train, or go on training, and print the summary."""
    keep_memory_to_itself()
    config, as_json = parse_run("train", arguments)
    from hushtune.finetuning import train
    from hushtune.report import terminal
    from hushtune.report.words import cut_line

    summary = train(config, terminal.TerminalProgress(quiet=as_json))
    if as_json:
        print(json.dumps(summary))
    else:
        terminal.show(
            "",
            {
                "cut": cut_line(summary.get("evaluation_rows_cut")),
                "seconds": summary["seconds"],
                "peak memory": f"{summary['peak_rss_mib']} MiB",
                "run folder": config.output,
                "ledger head": summary["ledger_head"],
            },
        )
    return 0
