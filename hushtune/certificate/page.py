"""The certificate as one page of HTML that needs nothing else, to read and to file."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import math
from typing import Any

from jinja2 import Environment, StrictUndefined

from hushtune.certificate.document import canonical, unit_in_words
from hushtune.guarantee import rounded_up

#: Term of the guarantee: (its name on the page, what it is).
_TERMS = {
    "epsilon": ("ε", "bounds what an outcome can reveal; the smaller, the stronger"),
    "delta": ("δ", "allowance for outcomes that reveal more than ε; 0 means that there are none"),
    "unit": ("unit", "what is protected: example is one row, otherwise the column that names it"),
    "adjacency": ("adjacency", "how two training data sets differ that are hard to tell apart"),
    "mechanism": ("mechanism", "distribution of the integer noise that is added to every sum"),
    "noise_multiplier": ("noise multiplier", "scale of the noise, in units of the clip"),
    "clip": ("clip C", "largest norm of what one unit contributes to a step"),
    "sampling_probability": ("sampling probability q", "of a unit to take part in a step"),
    "population": ("population n", "number of units that the plan was made for"),
    "steps": ("planned steps T", "what ε is computed for"),
    "steps_charged": ("charged steps", "steps whose budget is spent"),
    "steps_released": ("released steps", "charged steps that moved the model"),
    "epsilon_of_charged_steps": ("ε of charged steps", "for information"),
    "directions": ("directions K", "noised integers that a step releases"),
    "search": ("search", "the run is the best of randomly many; ε covers them all"),
    "accountant": ("accountant", "library that ε is computed with"),
    "accountant_version": ("accountant version", ""),
}

_HASHES = {
    "base_weights": "weights of the base model",
    "moving_parameters_before": "parameters that move, before the first step",
    "moving_parameters_after": "parameters that move, after the last step",
    "ledger_head": "last line of the ledger (its head)",
}

_QUESTIONS = {
    "add-or-remove-one": "whether it was among that data at all",
    "replace-one": "whether it was as it is or had another in its place",
}


def render(document: dict[str, Any]) -> str:
    """The page; follows from the certificate alone, byte for byte."""
    guarantee = document["guarantee"]
    epsilon = guarantee["epsilon"]
    template = importlib.resources.files("hushtune.certificate").joinpath("page.html.jinja")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        certificate=document,
        guarantee=guarantee,
        unit=unit_in_words(document["run"]["unit_column"]),
        question=_QUESTIONS[guarantee["adjacency"]],
        factor=rounded_up(math.exp(epsilon), 3) if epsilon < 700 else None,
        terms=_terms(guarantee),
        hashes={text: document["hashes"][name] for name, text in _HASHES.items()},
        files=document["hashes"]["files"],
        document_sha256=hashlib.sha256(canonical(document)).hexdigest(),
        rounded_up=rounded_up,
    )


def _terms(guarantee: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, what it is) of every term, known here or not."""
    apart = ("private", "group_privacy", "exclusions", "ledger_head")
    known = [name for name in _TERMS if name in guarantee]
    others = [name for name in guarantee if name not in known and name not in apart]
    rows = []
    for name in [*known, *others]:
        title, meaning = _TERMS.get(name, (name.replace("_", " "), ""))
        rows.append((title, _spelled(guarantee[name]), meaning))
    return rows


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
