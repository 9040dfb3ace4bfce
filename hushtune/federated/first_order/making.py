"""Codecs of a run: their size, what the header keeps of them, and the one of each round."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
from safetensors.torch import load, save

from hushtune.config import Config, ConfigError
from hushtune.federated.codecs import (
    AutoencoderCodec,
    Codec,
    IdentityCodec,
    LinearCodec,
    Prior,
    require_accepted,
    train,
)
from hushtune.federated.codecs.autoencoder import network_of
from hushtune.federated.codecs.images import halvings_of
from hushtune.federated.codecs.randomness import generator
from hushtune.federated.first_order.coded import CodecOf
from hushtune.federated.first_order.settings import CodedSettings

#: Numbers of an update for each number of its code, where nothing is said.
_COMPRESSION = 8.0

#: Steps of an auto-encoder's training.
_TRAINING_STEPS = 2000

#: Draws from which the length of an auto-encoder's codes is told.
_DRAWS = 16


def compression_of(config: Config) -> float:
    """d/m, as given.

    Raises:
        ConfigError: if the codec cannot have it.
    """
    federated = config.federated
    given, codec = federated.compression, federated.codec
    if codec == "identity":
        if given not in ("auto", 1.0):
            raise ConfigError(f"federated.compression: {given} is not accepted with identity.")
        return 1.0
    ratio = _COMPRESSION if given == "auto" else given
    if not 1 <= ratio < math.inf:
        raise ConfigError(f"federated.compression: {ratio} is not accepted; it must be 1 or more.")
    if codec == "autoencoder":
        try:
            halvings_of(1 / ratio)
        except ValueError:
            raise ConfigError(
                f"federated.compression: {ratio} is not accepted; it must be 2, 4, 8, … with "
                "federated.codec autoencoder."
            ) from None
    return ratio


def make_codec(config: Config, prior: Prior, *, what: str = "") -> Codec:
    """The codec that a run of this configuration has for a prior; an auto-encoder is trained.

    Args:
        what: names a linear codec's projection, beside the seed.

    Raises:
        ConfigError: if it cannot have that many numbers, or loses more than a projection.
    """
    ratio, kind = compression_of(config), config.federated.codec
    try:
        if kind == "identity":
            return IdentityCodec(prior.dimension)
        if kind == "autoencoder":
            codec: Codec = train(prior, 1 / ratio, config.seed, _TRAINING_STEPS)
        else:
            size = max(1, round(prior.dimension / ratio))
            codec = LinearCodec(prior, size, f"{config.seed} {what}")
        require_accepted(codec, prior, seed=config.seed)
    except ValueError as refusal:
        raise ConfigError(f"federated.codec: {refusal}") from None
    return codec


def kept_of(codec: Codec, prior: Prior, seed: int) -> dict[str, Any] | None:
    """What a ledger's header keeps, since nobody could compute it again bit by bit."""
    if not isinstance(codec, AutoencoderCodec):
        return None
    draws = prior.draw(generator(seed, "lengths of codes"), _DRAWS)
    codes = codec.encode(draws)
    return {
        "weights": base64.b64encode(save(codec.network.state_dict())).decode(),
        "energy": float(np.square(codes).sum(axis=1).mean()),
    }


def codec_maker(
    settings: CodedSettings, seed: int, ratio: float, kept: dict[str, Any] | None
) -> CodecOf:
    """Makes the codec of each round, and the gain of its codes.

    Args:
        seed: public.
        ratio: d/m as given.
        kept: as `kept_of` gave it.
    """
    if settings.codec == "identity":
        return lambda prior, charge: (IdentityCodec(prior.dimension), 1.0)
    if settings.codec == "linear":

        def linear(prior: Prior, charge: int) -> tuple[Codec, float]:
            codec = LinearCodec(prior, settings.size, f"{seed} round {charge}")
            return codec, _gain(prior, codec.energy)

        return linear
    assert kept is not None
    network = network_of(1 / ratio, load(base64.b64decode(kept["weights"])))
    energy = float(kept["energy"])
    return lambda prior, charge: (
        AutoencoderCodec(prior, 1 / ratio, network),
        _gain(prior, energy),
    )


def _gain(prior: Prior, energy: float) -> float:
    """What makes codes of that expected squared length as long as updates."""
    return math.sqrt(prior.energy / energy)
