"""The model card of a tuned model: `README.md` as the Hub reads it, from public facts alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hushtune.guarantee import exclusions, rounded_up
from hushtune.privacy import PrivacyPlan

#: What the Hub calls a task.
_PIPELINES = {
    "classification": "text-classification",
    "multiple-choice": "text-generation",
    "completion": "text-generation",
    "chat": "text-generation",
    "language-modelling": "text-generation",
}

#: In words, what a row of the private data was.
_ROWS = {
    "classification": "texts with a label",
    "multiple-choice": "texts with options to choose from",
    "completion": "prompts with a completion",
    "chat": "conversations",
    "language-modelling": "documents",
    "examples": "examples",
}


#: How units are counted that no column names.
_COUNTED = {"example": "rows", "client": "clients"}


def model_card(
    header: dict[str, Any],
    *,
    tune: str,
    kind: str | None = None,
    check: str = "`hushtune verify` checks that they make this model",
) -> str:
    """The card of a run, from its ledger's header.

    Args:
        tune: what moved.
        kind: of task; None: as the configuration says. "examples" are of no kind that has a name.
        check: what shows that the releases make the model.
    """
    config = header["config"]
    kind = kind or str(config["task"]["kind"])
    base = base_name(config)
    parts = [
        _front_matter(base, kind),
        f"# {base or 'A model'}, tuned on private text\n",
        f"hushtune {header['versions']['hushtune']} tuned this model {_way(header)}, with the "
        f"method `{config['method']['name']}`.\n",
        "## Data\n\n" + _data(config, kind, header["plan"]),
        "## Guarantee\n\n" + _guarantee(header, check),
        "## Settings\n\n" + _settings(header, tune),
    ]
    if header["private"]:
        lines = "".join(f"- {sentence}\n" for sentence in exclusions(header))
        parts.append(f"## What is not covered\n\n{lines}")
    return "\n".join(parts)


def _way(header: dict[str, Any]) -> str:
    """How it was tuned, and where the data was."""
    clients = header["config"].get("federated", {}).get("clients")
    by = "by gradients" if "codec" in header["settings"] else "by forward passes alone"
    return f"{by} at {clients} clients" if clients else by


def base_name(config: dict[str, Any]) -> str:
    """The base model as others know it: of a folder somewhere on this machine, its name."""
    base = config["model"]["name"]
    return Path(base).name if Path(base).is_absolute() else base


def _front_matter(base: str, kind: str) -> str:
    # JSON strings are YAML strings.
    lines = ["---", "library_name: transformers"]
    lines += [f"base_model: {json.dumps(base)}"] if base else []
    lines += [f"pipeline_tag: {_PIPELINES[kind]}"] if kind in _PIPELINES else []
    return "\n".join([*lines, "tags:\n- hushtune\n- differential-privacy\n---\n"])


def _data(config: dict[str, Any], kind: str, plan: dict[str, Any]) -> str:
    unit = plan.get("unit") or config["data"]["unit"] or "example"
    count = f"{plan['population']} {_COUNTED.get(unit, f'units by `{unit}`')}"
    labels = list(config["task"]["labels"])
    lines = [f"Private {_ROWS[kind]}: {count}."]
    if labels:
        lines.append("Labels: " + ", ".join(f"`{label}`" for label in labels) + ".")
    return "\n".join(lines) + "\n"


def _guarantee(header: dict[str, Any], check: str) -> str:
    if not header["private"]:
        return "None: nothing was clipped and no noise was added.\n"
    plan = PrivacyPlan.from_json(header["plan"])
    return (
        f"ε = {rounded_up(plan.epsilon())}, δ = {rounded_up(plan.delta)}, per {plan.unit}, "
        f"{plan.adjacency}.\n\n"
        f"{_search(plan)}"
        f"Every one of {plan.steps} steps released {plan.directions} sums of clipped numbers over "
        f"a Poisson sample (q = {plan.sampling_probability:.6g}), each with discrete "
        f"{plan.mechanism} noise of {plan.noise_multiplier:.6g} × the clip {plan.clip_norm:.6g}"
        f"{_times(header)}. The ledger of the run holds them, and {check}.\n"
    )


def _times(header: dict[str, Any]) -> str:
    """How often the noise is there."""
    federated = header["config"].get("federated", {})
    by_clients = federated.get("clients") and federated["trust"] == "nobody"
    return " from each client that answered" if by_clients else ""


def _search(plan: PrivacyPlan) -> str:
    if plan.search is None:
        return ""
    return (
        "That is the price of the search for settings which this run is the best of: a secret "
        f"number of runs, {plan.search.stopping.mean:.4g} expected, of which nothing else was "
        "released.\n\n"
    )


def _settings(header: dict[str, Any], tune: str) -> str:
    rows = {"moved": tune, "seed (public)": header["public_seed"]} | header["settings"]
    lines = "".join(f"| {name.replace('_', ' ')} | {value} |\n" for name, value in rows.items())
    return f"| | |\n|---|---|\n{lines}"
