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
    "cosine_on_draws",
    "moments",
    "require_accepted",
    "train",
]
