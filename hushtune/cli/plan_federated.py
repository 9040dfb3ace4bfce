"""`hushtune plan run.yaml` where the data is with several clients."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hushtune.cli.plan import curve_of
from hushtune.config import Config, ConfigError


def run(config: Config, *, as_json: bool) -> int:
    """Show noise and ε, and what a round asks of a client.

    Raises:
        ConfigError: settings that cannot be used, Flower that is not there, or a number of units
            that nobody said.
    """
    from hushtune.config.federated_checks import check_federated

    check_federated(config)
    try:
        from hushtune.federated.estimate import estimate_client
    except ImportError:
        raise ConfigError("federated runs need Flower: install hushtune[federated].") from None
    from hushtune import opening
    from hushtune.privacy import PrivacyPlan
    from hushtune.report.terminal import describe_session
    from hushtune.report.words import show

    units = _units(config)
    session = opening.begin(config, units=units, try_isolation=False)
    plan = session.plan
    assert isinstance(plan, PrivacyPlan)
    client = estimate_client(session, units)
    curve = curve_of(plan)
    clients = config.federated.clients
    side_by_side = -(-clients // (os.cpu_count() or 1))
    result: dict[str, Any] = {
        "noise_multiplier": plan.noise_multiplier,
        "sampling_probability": plan.sampling_probability,
        "steps": plan.steps,
        "directions": plan.directions,
        "epsilon": curve[-1][1],
        "delta": plan.delta,
        "epsilon_after_steps": curve,
        "clip_norm": plan.clip_norm,
        "clients": clients,
        "level": config.federated.level,
        "trust": config.federated.trust,
        "rows_of_a_client_a_round": client.rows,
        "bytes_to_client_a_round": client.bytes_to_client,
        "bytes_from_client_a_round": client.bytes_back,
        "bytes_to_client_first_round": client.bytes_at_first,
        "expected_seconds_of_a_client_a_round": _three_digits(client.seconds),
        "expected_seconds": _three_digits(client.seconds * plan.steps),
        "expected_seconds_of_a_simulation": _three_digits(
            client.seconds * plan.steps * side_by_side
        ),
        "expected_peak_mib": client.peak_mib,
    }
    if as_json:
        print(json.dumps(result))
        return 0
    show(
        "",
        describe_session(session)
        | {
            "ε over rounds": ", ".join(f"{value:.3g} after {rounds}" for rounds, value in curve),
            "a round": f"about {client.rows:.3g} rows, {client.seconds:.2g} s and "
            f"{client.peak_mib} MiB of a client like this machine",
            "bytes": f"{client.bytes_to_client} to a client a round and {client.bytes_at_first} in "
            f"the first, {client.bytes_back} back, as Flower serialises them",
            "expected": f"{result['expected_seconds']:g} s of computing with clients side by "
            f"side, {result['expected_seconds_of_a_simulation']:g} s in a simulation here; "
            "messages not counted",
        },
    )
    return 0


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def _units(config: Config) -> int:
    """Of all clients: counted where the data is here, as in a simulation, or as given."""
    from hushtune.tasks.data import count_units

    data, federated = config.data, config.federated
    if Path(data.train).exists():
        return count_units(data.train, data)
    if data.population is not None:
        return data.population
    if federated.by_client:
        return round(federated.clients * federated.examples)
    raise ConfigError(
        f"data.population: {data.train} is not on this machine; say how many units all clients "
        "have together, about."
    )
