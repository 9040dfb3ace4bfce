"""`hushtune audit RUN|run.yaml [--canaries M] [--steps N] [--confidence C] [--out FILE]`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from hushtune.cli.arguments import parse_flags


def run(arguments: Sequence[str]) -> int:
    """Bound ε from below by attacking the code as it runs; 1 if that contradicts the claim."""

    def command(
        run: Annotated[str, tyro.conf.Positional],
        canaries: int = 1000,
        steps: int | None = None,
        confidence: float = 0.95,
        out: str | None = None,
        json: bool = False,
    ) -> tuple[str, int, int | None, float, str | None, bool]:
        """Attack the code as it runs: an empirical lower bound on ε. Reads no private text.

        Args:
            run: a run folder, or the YAML file of a run to come.
            canaries: made-up texts, each put into a training run by a fair coin.
            steps: train on them for so many of the planned steps; all of them if left out.
            confidence: of all lower bounds together.
            out: file for the result; audit.json in the run folder if left out.
            json: print one line for machines.
        """
        return run, canaries, steps, confidence, out, json

    source, canaries, steps, confidence, out, as_json = parse_flags(
        command, arguments, prog="hushtune audit"
    )
    from hushtune.audit.both import audit
    from hushtune.files import write_json
    from hushtune.report.words import console

    folder = Path(source)
    session = _finished(folder) if folder.is_dir() else _planned(source)
    result = audit(
        session,
        canaries=canaries,
        steps=steps,
        confidence=confidence,
        tell=(lambda _: None) if as_json else console.print,
    )
    path = Path(out) if out else folder / "audit.json" if folder.is_dir() else None
    if path is not None:
        write_json(path, result)
    if as_json:
        print(json.dumps(result))
    else:
        _show(result, path)
    return 0 if result["passed"] else 1


def _finished(folder: Path) -> Any:
    """The session of a run, from its ledger's header; data and tuned model are not looked at."""
    from hushtune import session as sessions
    from hushtune.privacy import ledger as ledgers

    return sessions.resume(ledgers.read(folder / "ledger.jsonl").header)


def _planned(path: str) -> Any:
    """The session that a run of this file would have; the data's units are counted."""
    from hushtune import config as configuration
    from hushtune import session as sessions
    from hushtune.tasks.data import count_units

    config = configuration.load(path)
    configuration.check(config)
    return sessions.begin(config, units=count_units(config.data.train, config.data))


def _show(result: dict[str, Any], path: Path | None) -> None:
    from rich.markup import escape

    from hushtune.report.words import console, show

    mechanism, pipeline = result["mechanism"], result["pipeline"]
    claimed = result["epsilon_claimed"]
    gaussian = pipeline["epsilon_if_gaussian"]
    show(
        "",
        {
            "measured": f"[bold]ε ≥ {result['epsilon_lower_bound']:.3g}[/bold] with "
            f"{result['confidence']:.4g} confidence, δ = {result['delta']:g}, "
            f"{result['adjacency']}",
            "claimed": "nothing: this run has no privacy"
            if claimed is None
            else f"[bold]ε = {claimed:.4g}[/bold]",
            "mechanism": None
            if mechanism is None
            else f"ε ≥ {mechanism['epsilon_lower_bound']:.3g} from "
            f"{mechanism['released_coordinates']:,} released numbers",
            "pipeline": f"ε ≥ {pipeline['epsilon_lower_bound']:.3g} from {pipeline['canaries']:,} "
            f"canaries and {pipeline['steps']:,} steps"
            + ("" if claimed is None else f", which claim ε = {pipeline['epsilon_claimed']:.4g}"),
            "": None
            if gaussian is None
            else f"ε ≥ {gaussian:.3g} if its privacy curve is a Gaussian one",
        }
        | {
            name: "; ".join(
                f"{each['correct']} of {each['guesses']} right"
                for each in pipeline["guesses"]
                if each["attack"] == attack
            )
            for name, attack in (("through the ledger", "ledger"), ("through the model", "model"))
        }
        | {"written to": path},
    )
    for finding in [*((mechanism or {}).get("findings", [])), *pipeline["findings"]]:
        mark = "[green]ok[/green]" if finding["passed"] else "[bold red]FAILED[/bold red]"
        console.print(mark, escape(f"{finding['name']}: {finding['evidence']}"))
    if not result["passed"]:
        console.print(
            f"[bold red]contradicts the claim[/bold red]: {escape(result['failures'][0])}"
        )
