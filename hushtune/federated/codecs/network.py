"""The layers of the residual convolutional auto-encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hushtune.federated.codecs.randomness import Seed
from hushtune.zo.directions import Directions


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), shapes unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return image + self.second(torch.relu(self.first(torch.relu(image))))


class Network(nn.Module):
    """Encoder and decoder, after CG-FedLLM (arXiv 2405.13746) and DR-Encoder (arXiv 2412.17053).

    Each of n 3×3 convolutions of stride 2 halves both sides and doubles the channels: (1, s, s) to
    (2ⁿ, s/2ⁿ, s/2ⁿ), 2⁻ⁿ of the numbers. The decoder mirrors the encoder. Unlike theirs it has no
    BatchNorm, which would couple updates, and no Tanh, which would bound what can be said; and
    neither code nor output passes a ReLU, so that both have signs.

    Args:
        halvings: n.
        blocks: how many residual blocks stand at either side of the code.
        seed: public; weights are drawn from the public generator.
    """

    def __init__(self, halvings: int, blocks: int, seed: Seed) -> None:
        super().__init__()
        channels = [2**step for step in range(halvings + 1)]
        # torch's own generator draws in constructors; what it held is put back.
        with torch.random.fork_rng(devices=[]):
            down = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(channels)]
            up = [
                nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1)
                for a, b in pairwise(reversed(channels))
            ]
            around = [[ResidualBlock(channels[-1]) for _ in range(blocks)] for _ in range(2)]
        self.encoder = nn.Sequential(*_with_relu(down), *around[0])
        self.decoder = nn.Sequential(*around[1], *_with_relu(up))
        _initialise(self, seed)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1, s, s) to their reconstructions, of the same shape."""
        return self.decoder(self.encoder(images))


def _with_relu(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """The layers with a ReLU between any two."""
    return [part for layer in layers for part in (nn.ReLU(), layer)][1:]


def _initialise(network: Network, seed: Seed) -> None:
    """Uniform weights of variance 2 / fan-in (He et al. 2015) and biases of 0."""
    draw = Directions(seed, {})
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() == 1:
                parameter.zero_()
                continue
            bound = math.sqrt(6 / parameter[0].numel())
            parameter.copy_(draw.initial_uniform(f"autoencoder {name}", parameter.shape, bound))
