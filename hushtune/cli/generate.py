"""`hushtune generate RUN --out FILE.jsonl [--count N] [--prompts FILE] [--json]`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from hushtune.cli.arguments import parse_flags


def run(arguments: Sequence[str]) -> int:
    """Write synthetic rows with a run's model, and beside them what they are."""

    def command(
        run: Annotated[str, tyro.conf.Positional],
        out: str,
        count: int | None = None,
        prompts: str | None = None,
        conditions: tuple[str, ...] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        max_new_tokens: int | None = None,
        seed: int = 0,
        json: bool = False,
    ) -> dict[str, Any]:
        """Synthetic rows, of the columns that a run's model was tuned on. Prompts are PUBLIC.

        Beside FILE.jsonl, FILE.about.json says which model wrote them and what is guaranteed.

        Args:
            run: a run folder, of kind completion, chat or language-modelling.
            out: file to write, ending in .jsonl.
            count: how many rows; going through the prompts again and again. None: one a prompt.
            prompts: rows as the run's task reads them; what is to be written is left out.
            conditions: instead of prompts, values of the run's columns and how many rows of each,
                such as label=positive:50 label=negative:50.
            temperature: of the draws; below 1, what is likely becomes likelier.
            top_p: draw from the likeliest tokens that have this probability together.
            top_k: draw from so many of the likeliest tokens; 0: from all.
            max_new_tokens: of a row; none: what the model learned at most.
            seed: of the draws; public.
            json: print one line for machines.
        """
        return locals()

    asked = parse_flags(command, arguments, prog="hushtune generate")

    from rich.progress import Progress

    from hushtune.generation import Request
    from hushtune.report.words import console, show
    from hushtune.synthetic import write_synthetic
    from hushtune.tasks.generating import Sampling

    names = ("temperature", "top_p", "top_k")
    sampling = Sampling(**{name: asked[name] for name in names})
    request = Request(asked["count"], sampling, asked["max_new_tokens"], asked["seed"])
    quiet = asked["json"] or not console.is_terminal
    with Progress(console=console, transient=True, disable=quiet) as bar:
        rows = bar.add_task("writing", total=request.count)
        about = write_synthetic(
            Path(asked["run"]),
            Path(asked["out"]),
            request,
            prompts=asked["prompts"],
            conditions=asked["conditions"],
            after_batch=lambda written: bar.advance(rows, written),
        )
    if asked["json"]:
        print(json.dumps(about))
        return 0
    show("", _in_words(about, asked["out"]))
    return 0


def _in_words(about: dict[str, Any], out: str) -> dict[str, Any]:
    from hushtune.report.words import guarantee_line

    guarantee, writing = about["guarantee"], about["writing"]
    line = "[bold red]none[/bold red]"
    if guarantee["epsilon"] is not None:
        names = ("epsilon", "delta", "unit", "adjacency")
        line = guarantee_line(*(guarantee[name] for name in names))
    most = writing["max_new_tokens"]
    return {
        "rows": f"{about['rows']} of {', '.join(about['columns'])}, in {out}",
        "cut off": f"{writing['cut_off']}, at {most} new tokens" if writing["cut_off"] else None,
        "left out": f"{writing['left_out']} that stayed empty" if writing["left_out"] else None,
        "guarantee": line,
        "[bold red]comparison[/bold red]": about.get("comparison"),
        "why": about["post_processing"],
        "not covered": "\n".join(about["not_covered"]) or None,
    }
