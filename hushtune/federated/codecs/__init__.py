"""Codecs: a client's update as fewer numbers, and back.

    priors       what an update looks like before any is seen: layers, means, deviations
    base         what every codec offers
    identity     nothing is left out
    linear       a seeded orthonormal projection of each layer; the default
    autoencoder  a residual convolutional network, trained on draws of the prior
    acceptance   no codec is used that loses more than a projection does
    shares       how the numbers of a code are split over the layers
    projection   the projection of one layer, by Walsh-Hadamard transforms
    network      the auto-encoder's layers
    images       what it sees of an update
    randomness   public signs, permutations and draws

What is encoded is clipped, summed and noised as a code; a codec sees private values in `encode`
only. `decode` is post-processing of what the boundary released. The setting is that of DR-Encoder
(arXiv 2412.17053).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hushtune.federated.codecs.acceptance import cosine_on_draws, require_accepted
from hushtune.federated.codecs.autoencoder import AutoencoderCodec, train
from hushtune.federated.codecs.base import Codec
from hushtune.federated.codecs.identity import IdentityCodec
from hushtune.federated.codecs.linear import LinearCodec
from hushtune.federated.codecs.priors import Layer, Prior, moments

__all__ = [
    "AutoencoderCodec",
    "Codec",
    "IdentityCodec",
    "Layer",
    "LinearCodec",
    "Prior",
    "codec_from_json",
    "cosine_on_draws",
    "moments",
    "require_accepted",
    "train",
]


def codec_from_json(value: dict[str, Any], folder: Path | None = None) -> Codec:
    """The codec whose `to_json` gave this value.

    Args:
        value: plain values.
        folder: where an auto-encoder was saved; other codecs need none.

    Raises:
        ValueError: if no codec is of that kind, or the folder has not the weights that are named.
    """
    kind = value["kind"]
    if kind == IdentityCodec.kind:
        return IdentityCodec.from_json(value)
    if kind == LinearCodec.kind:
        return LinearCodec.from_json(value)
    if kind == AutoencoderCodec.kind and folder is not None:
        return AutoencoderCodec.from_json(value, folder)
    raise ValueError(f"Expected {kind=} to be identity, linear, or autoencoder with a folder.")
