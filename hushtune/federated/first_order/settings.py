"""What a run of coded updates fixes beside its privacy plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hushtune.config import Config, ConfigError

#: Clip, in units of the median length of updates on public text.
_CLIP_FACTOR = 0.25

#: Steps of the server.
_LEARNING_RATE = {"adam": 0.005, "sgd": 1.0}

#: Expected units a round as a share of all, where examples are units.
_SHARE = 0.04

_ROUNDS = 100


@dataclass(frozen=True)
class CodedSettings:
    """Settings of coded updates, resolved; public, in the ledger's header.

    Attributes:
        codec: "linear", "identity" or "autoencoder".
        dimension: d, how many numbers move.
        size: m, the numbers of a code.
        prior: "private" or "public"; see `hushtune.config.FederatedConfig`.
        moment_rounds: how many rounds at the beginning release moments.
        update: what moves the parameters along a decoded update, "adam" or "sgd".
        learning_rate: η of the server's first step.
        schedule: "constant" or "linear".
        local_learning_rate: η of a client's own steps.
        local_batch: examples of one of these.
    """

    codec: Literal["linear", "identity", "autoencoder"]
    dimension: int
    size: int
    prior: Literal["private", "public"]
    moment_rounds: int
    update: Literal["adam", "sgd"]
    learning_rate: float
    schedule: Literal["constant", "linear"]
    local_learning_rate: float
    local_batch: int

    def described(self, directions: int) -> str:
        """How updates become what is released, in words."""
        del directions
        ratio = f"{self.size:,} numbers for {self.dimension:,}"
        if self.codec == "identity":
            return f"updates of {self.dimension:,} numbers, not shortened"
        prior = "public prior"
        if self.prior == "private":
            prior = f"prior from {self.moment_rounds} round{'s' * (self.moment_rounds > 1)}"
        return f"{self.codec} codec, {ratio}, {prior}"


def rounds_of(config: Config) -> int:
    """T, moments and codes together."""
    return _ROUNDS if config.method.steps == "auto" else config.method.steps


def batch_of(config: Config, population: int) -> float:
    """Expected units a round; every client, where clients are units."""
    if config.federated.by_client:
        return float(population)
    if config.method.batch != "auto":
        return config.method.batch
    return max(1.0, float(round(_SHARE * population)))


def clip_norm_of(config: Config, median: float) -> float:
    """C, from the median length of updates on public text."""
    return _CLIP_FACTOR * median if config.method.clip_norm == "auto" else config.method.clip_norm


def settings_of(config: Config, *, dimension: int, size: int) -> CodedSettings:
    """From what the person gave to what the run does.

    Args:
        dimension: d.
        size: m, that of the codec.

    Raises:
        ConfigError: if moments take all rounds.
    """
    method, federated = config.method, config.federated
    optimizer: Literal["adam", "sgd"] = "sgd" if method.optimizer == "sgd" else "adam"
    learns = federated.prior == "private" and federated.codec != "identity"
    if learns and federated.moment_rounds >= rounds_of(config):
        raise ConfigError(
            f"federated.moment_rounds: {federated.moment_rounds} is not accepted; it must be less "
            f"than the number of rounds, {rounds_of(config)}."
        )
    return CodedSettings(
        codec=federated.codec,
        dimension=dimension,
        size=size,
        prior=federated.prior,
        moment_rounds=federated.moment_rounds if learns else 0,
        update=optimizer,
        learning_rate=_LEARNING_RATE[optimizer]
        if method.learning_rate == "auto"
        else method.learning_rate,
        schedule="linear" if method.schedule == "auto" else method.schedule,
        local_learning_rate=federated.local_learning_rate,
        local_batch=federated.local_batch,
    )
