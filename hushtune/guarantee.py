"""The guarantee of a run, in words and numbers, from its ledger alone."""

from __future__ import annotations

import decimal
from typing import Any

from hushtune.privacy import PrivacyPlan, accounting, group_privacy
from hushtune.privacy.accounting.search import ACCOUNTANT_OF_SEARCH
from hushtune.privacy.ledger import LedgerError, Record


def describe_guarantee(record: Record) -> dict[str, Any]:
    """What the ledger claims, with all its terms, as plain values for `privacy.json`.

    ε is that of the planned steps, since the time of an early stop may depend on releases.
    """
    header = record.header
    if not {"private", "plan", "config"} <= header.keys():
        raise LedgerError("line 1: the header is no run's, so nothing can be said of privacy.")
    steps = {
        "steps_charged": record.charges,
        "steps_released": len(record.releases),
        "ledger_head": record.head,
    }
    if not header["private"]:
        return {
            "private": False,
            "epsilon": None,
            "delta": None,
            **steps,
            "exclusions": ["This run has no privacy: nothing was clipped and no noise added."],
        }
    try:
        plan = PrivacyPlan.from_json(header["plan"])
        epsilon = plan.epsilon()
    except (TypeError, KeyError, ValueError) as error:
        raise LedgerError(f"line 1: the header's plan cannot be used: {error}") from None
    return {
        "private": True,
        "epsilon": epsilon,
        "delta": plan.delta,
        "epsilon_of_charged_steps": plan.epsilon(record.charges) if record.charges else 0.0,
        "unit": plan.unit,
        "adjacency": plan.adjacency,
        "mechanism": plan.mechanism,
        "noise_multiplier": plan.noise_multiplier,
        "clip": plan.clip_norm,
        "sampling_probability": plan.sampling_probability,
        "population": plan.population,
        "steps": plan.steps,
        "directions": plan.directions,
        "group_privacy": [
            dict(
                zip(
                    ("units", "epsilon", "delta"),
                    (size, *group_privacy(epsilon, plan.delta, size)),
                    strict=True,
                )
            )
            for size in (2, 5, 10)
        ],
        **_search(plan),
        **_federated(header),
        **_coded(header, plan),
        "accountant": accounting.ACCOUNTANT if plan.search is None else ACCOUNTANT_OF_SEARCH,
        "accountant_version": accounting.ACCOUNTANT_VERSION,
        **steps,
        "exclusions": exclusions(header),
    }


def _search(plan: PrivacyPlan) -> dict[str, Any]:
    """What a search adds to the terms; ε is that of all its runs."""
    if plan.search is None:
        return {}
    stopping = plan.search.stopping
    return {"search": {**stopping.to_json(), "expected_runs": stopping.mean}}


def _federated(header: dict[str, Any]) -> dict[str, Any]:
    """Whom the guarantee of a federated run holds against."""
    federated = header["config"].get("federated", {})
    if not federated.get("clients"):
        return {}
    return {"federated": {key: federated[key] for key in ("clients", "level", "trust")}}


def _coded(header: dict[str, Any], plan: PrivacyPlan) -> dict[str, Any]:
    """What a run of coded updates releases, and what other accountants say of the same rounds."""
    settings = header.get("settings", {})
    if "codec" not in settings:
        return {}
    beside = accounting.shown_beside([plan.phase], plan.delta, adjacency=plan.adjacency)
    return {
        "codes": {key: settings[key] for key in ("codec", "dimension", "size", "moment_rounds")},
        "epsilon_beside": {name: beside[name] for name in ("gdp", "rdp")},
    }


def _trusted(header: dict[str, Any]) -> list[str]:
    """Who has to be trusted, one sentence each."""
    federated = header["config"].get("federated", {})
    if not federated.get("clients"):
        return ["Whoever runs the training, and the machine it runs on, are trusted with the data."]
    by_client = federated["level"] == "client"
    known = "W" if by_client else "How many units each client holds, w"
    sentences = [
        "Whoever runs a client, and the machine it runs on, are trusted with that client's data.",
        f"{known}hich clients take part, and how long they take to answer, is known to the server.",
    ]
    if by_client:
        sentences.append(
            "Which rows a client holds is taken as given: where a row decides what other clients "
            "hold, as in a simulation that shares out one file, ε does not cover that."
        )
    else:
        sentences.append(
            "A unit whose rows are with several clients counts as one at each of them: its ε is "
            "that of a group of so many."
        )
    if federated["trust"] == "server":
        sentences.append(
            "The server sees each client's sums without noise, and is trusted with them and with "
            "adding the noise. So are the SuperLink that passes them on, whatever file that keeps "
            "them in, and every link that is not encrypted."
        )
    else:
        sentences.append(
            "Each client adds the whole noise to its own sums, so ε holds against the server too, "
            "as far as the client's program is the one that it should be."
        )
    return sentences


def exclusions(header: dict[str, Any]) -> list[str]:
    """What the guarantee does not cover, one sentence each."""
    data = header["config"]["data"]
    sentences = []
    if data["population"] is None:
        sentences.append(f"The number of units, {header['plan']['population']}, is public.")
    else:
        sentences.append(
            "The number of units was given by the user; it is covered only if it was rounded or "
            "noised."
        )
    if data["eval"] is not None:
        sentences.append("The evaluation data is public; accuracies on it are exact.")
    if ":" in header["config"].get("task", {}).get("objective", ""):
        sentences.append(
            "The scoring function is the user's own: it sees answers and texts, and is trusted to "
            "keep nothing of them and to write nothing down."
        )
    registry = header["config"].get("privacy", {}).get("registry")
    tried = "settings tried before this run"
    if "search" in header["plan"]:
        tried = "settings tried outside of the search"
        sentences.append(
            "How long the search took, as somebody at the terminal or on the machine sees it; that "
            "tells about how many runs there were."
        )
    others = f"Other runs on the same data, private evaluations of this one, and {tried}, add to ε"
    return [
        *sentences,
        *_trusted(header),
        "Noise and sampling come from cryptographic generators, so every ε, pure ε too, holds "
        "against computationally bounded adversaries.",
        f"{others}." if registry is None else f"{others}; the registry {registry} adds them up.",
        "Running time and memory, as somebody on the machine sees them.",
        "The run folder protects people in the training data against its readers; "
        "the training file itself, memory and core dumps are not protected.",
        "This is claimed by the ledger: a chain of hashes cannot show that its end was not cut "
        "off, that a folder was not copied and trained twice, or that noise was added.",
    ]


def rounded_up(value: float, digits: int = 4) -> str:
    """`value` in so many significant digits, never less than it is."""
    upwards = decimal.Context(prec=digits, rounding=decimal.ROUND_CEILING)
    return f"{float(upwards.create_decimal(repr(float(value)))):.{digits}g}"
