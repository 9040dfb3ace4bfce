"""DR-Encoder's codec: a residual convolutional auto-encoder, trained on draws of a prior.

It sees an update whitened by the prior's means and deviations, which stay what they are, as a
square image padded with zeros. Nothing of a real update can reach the training: `train` takes a
prior and public numbers. Training is the same for every call on one machine, not on every machine;
the weights are kept, and what they encode and decode is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from hushtune.federated.codecs.base import by_row, checked_code
from hushtune.federated.codecs.exact import forward
from hushtune.federated.codecs.images import halvings_of, side_of, whitened
from hushtune.federated.codecs.network import Network
from hushtune.federated.codecs.priors import Prior
from hushtune.federated.codecs.randomness import Seed, generator

_BLOCKS = 2

#: Sides of the patches that the network is trained on, at most.
_PATCH = 64


@dataclass(frozen=True, eq=False)
class AutoencoderCodec:
    """Encodes and decodes by a network. Its codes are not linear in updates.

    Attributes:
        prior: of one update; also the network's scales.
        ratio: 2⁻ⁿ, the share of the padded image's numbers that a code has.
        network: trained on the prior.
    """

    prior: Prior
    ratio: float
    network: Network

    kind: ClassVar[str] = "autoencoder"
    linear: ClassVar[bool] = False

    @property
    def dimension(self) -> int:
        return self.prior.dimension

    @property
    def size(self) -> int:
        return int(side_of(self.prior.dimension, self.ratio) ** 2 * self.ratio)

    def encode(self, updates: np.ndarray) -> np.ndarray:
        return by_row(self._encode, updates, self.dimension, self.size)

    def decode(self, code: np.ndarray, noise: float) -> np.ndarray:
        """(d,) float64 as in `Codec.decode`; what noise the code has makes no difference."""
        side = int(side_of(self.prior.dimension, self.ratio) * 2.0 ** -halvings_of(self.ratio))
        latent = checked_code(code, noise, self.size).reshape(-1, side, side)
        numbers = forward(self.network.decoder, latent).reshape(-1)[: self.dimension]
        return self.prior.mean + self.prior.deviation * numbers

    def _encode(self, update: np.ndarray) -> np.ndarray:
        image = whitened(update[None], self.prior, self.ratio)[0]
        return forward(self.network.encoder, image).reshape(-1)


def network_of(ratio: float, weights: Mapping[str, Tensor]) -> Network:
    """The network of a codec of this ratio, with weights that were trained before."""
    network = Network(halvings_of(ratio), _BLOCKS, 0)
    network.load_state_dict(dict(weights))
    return network


def train(
    prior: Prior,
    ratio: float,
    seed: Seed,
    steps: int,
    *,
    batch: int = 16,
    learning_rate: float = 3e-3,
) -> AutoencoderCodec:
    """The auto-encoder that reconstructs synthetic updates with small mean square error (Adam).

    Args:
        prior: what synthetic updates are drawn from.
        ratio: 1/2, 1/4, …: how much smaller a code is than the padded image.
        seed: public; any int or text. The same seed gives the same weights on one machine.
        steps: of training, one batch each.
        batch: synthetic updates a step.
        learning_rate: Adam's.

    Raises:
        ValueError: if the ratio is not a negative power of two.
    """
    network = Network(halvings_of(ratio), _BLOCKS, seed)
    rng = generator(seed, "training of the auto-encoder")
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    side = min(side_of(prior.dimension, ratio), _PATCH)
    for _ in range(steps):
        # A whitened draw is independent standard normal numbers, whatever the prior; what a
        # convolution learns of them it learns from a patch.
        images = torch.from_numpy(rng.standard_normal((batch, 1, side, side))).float()
        difference = network(images) - images
        optimizer.zero_grad()
        difference.square().mean().backward()
        optimizer.step()
    return AutoencoderCodec(prior, ratio, network)
