"""`hushtune replay LEDGER --model BASE --out DIR`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hushtune.cli.arguments import parse_flags


def run(arguments: Sequence[str]) -> int:
    """Make the tuned model again."""

    def command(
        ledger: Annotated[str, tyro.conf.Positional],
        out: str,
        model: str | None = None,
        json: bool = False,
    ) -> tuple[str, str, str | None, bool]:
        """The tuned model from its ledger and the base model, bit for bit. Needs no data.

        Args:
            ledger: a ledger, or the run folder that holds it.
            out: folder to write model/ or adapter/ to.
            model: the base model, if not where the ledger says.
            json: print one line for machines.
        """
        return ledger, out, model, json

    source, out, model, as_json = parse_flags(command, arguments, prog="hushtune replay")
    path = Path(source)
    path = path / "ledger.jsonl" if path.is_dir() else path

    from hushtune import run as runs
    from hushtune.models.load import hash_tensors
    from hushtune.report.words import show

    session = runs.replay(path, model=model, out=Path(out))
    moved = hash_tensors(session.parameters.items())
    summary = path.with_name("summary.json")
    trained = json.loads(summary.read_text()).get("moved_sha256") if summary.exists() else None
    result = {
        "out": out,
        "parameters": sum(parameter.numel() for parameter in session.parameters.values()),
        "moved_sha256": moved,
        "same_as_trained": None if trained is None else moved == trained,
    }
    if as_json:
        print(json.dumps(result))
    else:
        show(
            "",
            {
                "written to": out,
                "moved parameters": f"{result['parameters']:,}",
                "SHA-256": moved,
                "trained model": {None: None, True: "the same, bit for bit", False: "DIFFERENT"}[
                    result["same_as_trained"]
                ],
            },
        )
    return 0
