"""`hushtune demo`"""

from __future__ import annotations

import json
from collections.abc import Sequence

from hushtune.cli.arguments import parse_flags


def run(arguments: Sequence[str]) -> int:
    """Generate messages, fine-tune privately and without privacy, compare."""

    def command(output: str = "runs/demo", epsilon: float = 2.0, json: bool = False) -> tuple:
        """Fine-tune a sentence encoder on made-up support messages, in about two minutes.

        Args:
            output: the run folder; must not hold another run.
            epsilon: ε of the private run.
            json: print one line for machines.
        """
        return output, epsilon, json

    output, epsilon, as_json = parse_flags(command, arguments, prog="hushtune demo")
    from hushtune.demo.demonstration import demonstrate

    summary = demonstrate(output, epsilon=epsilon, quiet=as_json)
    if as_json:
        print(json.dumps(summary))
    return 0
