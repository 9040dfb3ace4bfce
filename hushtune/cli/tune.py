"""`hushtune tune search.yaml [--plan] [flags]`"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hushtune.cli.arguments import over_file
from hushtune.cli.residue import keep_memory_to_itself
from hushtune.config import Config

if TYPE_CHECKING:
    from hushtune.config.searching import SearchConfig
    from hushtune.tuning import PlannedSearch

#: What `tune` shows of a summary.
_SHOWN = ("zero_shot_", "private_")


def run(arguments: Sequence[str]) -> int:
    """Choose settings privately and train with them, or with --plan only say what that costs."""
    flags = [each for each in arguments if each not in ("--plan", "--json")]
    as_json = "--json" in arguments
    path = flags.pop(0) if flags and not flags[0].startswith("-") else None
    name = "tune search.yaml [--plan]"
    if path is None:
        over_file(name, Config(), flags)  # --help ends here
        raise ValueError("expected a file with a section search; flags follow it.")
    from hushtune.config.searching import load_search

    config, search = load_search(path)
    config = over_file(name, config, flags)
    return (_plan if "--plan" in arguments else _tune)(config, search, as_json=as_json)


def _tune(config: Config, search: SearchConfig, *, as_json: bool) -> int:
    keep_memory_to_itself()
    from hushtune.report.words import console, metric_text, show
    from hushtune.tuning import tune

    def planned(plan: PlannedSearch) -> None:
        if not as_json:
            _show(_describe(plan, search), config)
            console.print("searching; nothing is shown before it ends")

    summary = tune(config, search, planned=planned)
    if as_json:
        print(json.dumps(summary))
        return 0
    metrics = {
        name.replace("_", " "): metric_text(name.removeprefix(prefix), value)
        for prefix in _SHOWN
        for name, value in summary.items()
        if name.startswith(prefix)
    }
    show("", metrics | {"run folder": config.output, "ledger head": summary["ledger_head"]})
    return 0


def _plan(config: Config, search: SearchConfig, *, as_json: bool) -> int:
    """The search's terms; the data's rows are counted and nothing else."""
    from hushtune.tasks.data import count_units
    from hushtune.tuning import plan_search

    units = count_units(config.data.train, config.data)
    described = _describe(plan_search(config, search, units=units), search)
    if as_json:
        print(json.dumps(described))
    else:
        _show(described, config)
    return 0


def _describe(plan: PlannedSearch, search: SearchConfig) -> dict[str, Any]:
    """What a search costs, and what its runs would cost if each were published alone."""
    stopping = plan.terms.stopping
    return {
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "distribution": search.distribution,
        "expected_runs": stopping.mean,
        "runs_in_nine_of_ten_searches": [stopping.quantile(0.05), stopping.quantile(0.95)],
        "score": search.score,
        "score_noise": None if plan.scoring is None else plan.scoring.noise_multiplier,
        "configurations": [
            {"settings": settings} | _one_run(phase, plan)
            for settings, phase in zip(search.over, plan.trainings(), strict=True)
        ],
    }


def _one_run(phase: Any, plan: PlannedSearch) -> dict[str, Any]:
    """A run's noise, and what the same steps would cost or need outside of a search."""
    from hushtune.privacy import accounting

    terms = dataclasses.asdict(phase)
    terms.pop("noise_scale_integer")
    noise = terms.pop("noise_multiplier")
    return {
        **{name: terms[name] for name in ("sampling_probability", "steps", "directions")},
        "noise_multiplier": noise,
        "epsilon_of_one_run": accounting.epsilon(**terms, noise_multiplier=noise, delta=plan.delta),
        "noise_multiplier_without_search": accounting.calibrate(
            **terms, epsilon=plan.epsilon, delta=plan.delta
        ),
    }


def _show(described: dict[str, Any], config: Config) -> None:
    from rich.table import Table

    from hushtune.report.words import console, guarantee_line, show

    fewest, most = described["runs_in_nine_of_ten_searches"]
    line = guarantee_line(
        described["epsilon"],
        described["delta"],
        config.protected,
        config.privacy.adjacency,
    )
    show(
        "",
        {
            "model": config.model.name,
            "search": f"the best of a secret number of runs, {described['expected_runs']:.4g} "
            f"expected ({described['distribution']}, mostly {fewest} to {most})",
            "score": None
            if described["score_noise"] is None
            else "how many units are right, on the training data, with noise of "
            f"{described['score_noise']:.4g}",
            "guarantee": f"{line}, for the whole search",
        },
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("method", "steps", "q", "noise", "ε alone", "noise alone"):
        table.add_column(heading)
    for each in described["configurations"]:
        settings = ", ".join(
            f"{key.removeprefix('method.')} {value}" for key, value in each["settings"].items()
        )
        table.add_row(
            settings or "as in the file",
            str(each["steps"]),
            f"{each['sampling_probability']:.4g}",
            f"{each['noise_multiplier']:.4g}",
            f"{each['epsilon_of_one_run']:.4g}",
            f"{each['noise_multiplier_without_search']:.4g}",
        )
    console.print(table)
    console.print(
        "ε alone: of one such run with this noise. noise alone: what it needed outside of a search."
    )
