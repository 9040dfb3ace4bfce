"""`hushtune eval RUN --data FILE [--public | --private --epsilon ε …] [--json]`"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from hushtune.cli.arguments import parse_flags
from hushtune.cli.residue import keep_memory_to_itself

#: Flags that say what a private evaluation may cost, and whom.
_TERMS = ("epsilon", "delta", "budget", "unit", "population", "limit", "disjoint")


def run(arguments: Sequence[str]) -> int:
    """Print the metrics of a run's model: exact on public data, noised on private data."""

    def command(
        run: Annotated[str, tyro.conf.Positional],
        data: str,
        public: bool = False,
        private: bool = False,
        epsilon: float | None = None,
        delta: float | None = None,
        budget: float | None = None,
        unit: str | None = None,
        population: int | None = None,
        limit: float | None = None,
        disjoint: bool = False,
        json: bool = False,
    ) -> dict[str, Any]:
        """Metrics of a run's model, exact on PUBLIC data; with --private noised, and charged.

        Without --public or --private the data is treated as PUBLIC.

        Args:
            run: a run folder.
            data: rows as the run's task reads them, in the run's columns.
            public: the data is public.
            private: the data is private: release noised metrics, charged to an evaluation budget.
            epsilon: ε of this call; what follows goes with --private too.
            delta: δ of all calls together; the training's if none, or 1e-5 and at most a
                tenth of 1 / units.
            budget: ε of all calls together, fixed by the first one; the first one's ε if none.
            unit: example, or the column that names a unit; the training's if none.
            population: about how many units there are, if that may be known; as many as in the
                training if none. δ has to be below 1 / this.
            limit: rows, or tokens for a perplexity, that a unit counts for at most; with more it is
                scaled down. 1 row, or the tokens of the longest text, if none.
            disjoint: state that no unit of this data is in the training data.
            json: print one line for machines.
        """
        return locals()

    flags = parse_flags(command, arguments, prog="hushtune eval")
    given = {name: flags[name] for name in _TERMS if flags[name] is not None}
    if not given["disjoint"]:
        del given["disjoint"]
    if flags["private"]:
        if flags["public"]:
            raise ValueError("--public and --private exclude each other.")
        if "epsilon" not in given:
            raise ValueError("--private needs --epsilon, such as 0.5.")
        keep_memory_to_itself()
        from hushtune.evaluating.private import Terms, evaluate_on_private

        result = evaluate_on_private(Path(flags["run"]), flags["data"], Terms(**given))
        show = _show_private
    else:
        if given:
            raise ValueError(f"--{next(iter(given))} goes with --private.")
        from hushtune.evaluating.public import evaluate_on_public

        result = evaluate_on_public(Path(flags["run"]), flags["data"])
        show = _show_public
    if flags["json"]:
        print(json.dumps(result))
    else:
        show(result)
    return 0


def _show_public(result: Mapping[str, Any]) -> None:
    from hushtune.report.words import cut_line, metric_text, show

    metrics = list(result)[: list(result).index("rows")]
    show(
        "",
        {
            **{name.replace("_", " "): metric_text(name, result[name]) for name in metrics},
            "rows": result["rows"],
            "cut": cut_line(result["rows_cut"]),
            "data": f"{result['data']}, treated as public",
            "[bold red]comparison[/bold red]": result.get("comparison"),
        },
    )


def _show_private(result: Mapping[str, Any]) -> None:
    from hushtune.guarantee import rounded_up
    from hushtune.report.words import console, guarantee_line, show

    metrics = [name.removesuffix("_interval") for name in result if name.endswith("_interval")]
    (counted,) = (name for name in ("rows", "tokens") if f"noised_{name}" in result)
    all_calls = result["evaluation"]
    terms = [result[name] for name in ("epsilon", "delta", "unit", "adjacency")]
    show(
        "",
        {
            **{name.replace("_", " "): _metric_line(result, name) for name in metrics},
            f"{counted}, noised": f"{result[f'noised_{counted}']:.4g} ± "
            f"{result[f'noised_{counted}_standard_error']:.2g}, "
            f"each unit counting for {result['limit']:g} at most",
            "data": f"{result['data']}, private",
            "claimed": f"[bold]{guarantee_line(*terms)}[/bold] for this call",
            "budget": f"ε = {rounded_up(all_calls['epsilon_of_charged_calls'])} of "
            f"{all_calls['epsilon']:g} spent in {all_calls['calls_charged']} calls",
            "ledger head": all_calls["head"],
        },
    )
    console.print("not covered:")
    for sentence in all_calls["exclusions"]:
        console.print(f"  - {sentence}")


def _metric_line(result: Mapping[str, Any], name: str) -> str:
    from hushtune.report.words import metric_text

    if result[name] is None:
        return f"not told: {result['no_ratio']}"
    low, high = (metric_text(name, end) for end in result[f"{name}_interval"])
    error = metric_text(name, result[f"{name}_standard_error"])
    return (
        f"{metric_text(name, result[name])} ± {error} from noise alone; "
        f"{result['confidence']:.0%} interval {low} to {high}"
    )
