"""Refuse federated settings that cannot work, before anybody is asked for anything."""

from __future__ import annotations

import math

from hushtune.config.checks import check_settings, require
from hushtune.config.settings import Config

_NO_SECURE_AGGREGATION = (
    "server, or nobody; secure aggregation as Flower 1.41 has it hides no number: its masks can "
    "be searched through (docs/federated.md)"
)


def check_federated(config: Config) -> None:
    """`hushtune.config.check`, and what federated rounds need besides.

    Raises:
        ConfigError: one line that names the key, its value and what is accepted.
    """
    federated, method = config.federated, config.method
    require(federated.clients >= 2, "federated.clients", federated.clients, "at least 2")
    require(
        federated.trust != "secure-aggregation",
        "federated.trust",
        federated.trust,
        _NO_SECURE_AGGREGATION,
    )
    require(
        1 <= federated.least_replies <= federated.clients,
        "federated.least_replies",
        federated.least_replies,
        f"from 1 to federated.clients, {federated.clients}",
    )
    for key in ("moment_rounds", "local_batch"):
        value = getattr(federated, key)
        require(value >= 1, f"federated.{key}", value, "1 or more")
    for key in ("timeout", "examples", "heterogeneity", "local_learning_rate"):
        value = getattr(federated, key)
        require(0 < value < math.inf, f"federated.{key}", value, "positive and finite")
    check_settings(config)
    unit = "none for rows, or a column; one of this name would be taken for clients"
    require(config.data.unit != "client", "data.unit", config.data.unit, unit)
    require(
        method.name not in ("mezo", "dp-sgd"),
        "method.name",
        method.name,
        "dp-aggzo, dp-zo, dpzero or dr-encoder where data is federated",
    )
    require(
        ":" not in config.task.objective,
        "task.objective",
        config.task.objective,
        "one that has a name; clients run no function that a server sends",
    )
    if not federated.by_client:
        return
    without = "left out with federated.level client, where a client is the unit"
    require(config.data.unit is None, "data.unit", config.data.unit, without)
    require(config.data.population is None, "data.population", config.data.population, without)
    accepted = "auto with federated.level client, where every client takes part in every round"
    require(method.batch == "auto", "method.batch", method.batch, accepted)
