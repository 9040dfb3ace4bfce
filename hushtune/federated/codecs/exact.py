"""The auto-encoder's forward pass in float64, the same bits on every machine.

What a round decodes moves the parameters, so whoever replays a ledger has to decode the same.
Libraries add up a convolution in an order that depends on the processor. Here every output is a sum
in one order, over input channels and then over the 3×3 taps, of products that are rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import nn

from hushtune.federated.codecs.network import ResidualBlock


def forward(layers: Iterable[nn.Module], image: np.ndarray) -> np.ndarray:
    """(channels, s, s) float64 through an encoder or a decoder of `Network`."""
    for layer in layers:
        match layer:
            case nn.ReLU():
                image = np.maximum(image, 0.0)
            case ResidualBlock():
                inside = _convolved(np.maximum(image, 0.0), layer.first)
                image = image + _convolved(np.maximum(inside, 0.0), layer.second)
            case nn.ConvTranspose2d():
                image = _transposed(image, layer)
            case nn.Conv2d():
                image = _convolved(image, layer)
            case _:
                raise TypeError(f"Expected no {type(layer).__name__} in the network.")
    return image


def _convolved(image: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """A 3×3 convolution with a border of one zero."""
    weight, bias = _numbers(layer)
    stride = layer.stride[0]
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    height, width = (-(-side // stride) for side in image.shape[1:])
    total = np.empty((len(bias), height, width))
    total[:] = bias[:, None, None]
    for channel in range(len(image)):
        for down in range(3):
            rows = padded[channel, down : down + stride * height : stride]
            for right in range(3):
                seen = rows[:height, right : right + stride * width : stride]
                total += weight[:, channel, down, right, None, None] * seen[None, :, :width]
    return total


def _transposed(image: np.ndarray, layer: nn.ConvTranspose2d) -> np.ndarray:
    """Its mirror image: both sides become twice as long."""
    weight, bias = _numbers(layer)
    height, width = 2 * image.shape[1], 2 * image.shape[2]
    total = np.zeros((len(bias), height + 1, width + 1))
    for channel in range(len(image)):
        for down in range(3):
            for right in range(3):
                tap = weight[channel, :, down, right, None, None] * image[None, channel]
                total[:, down : down + height : 2, right : right + width : 2] += tap
    return total[:, 1:, 1:] + bias[:, None, None]


def _numbers(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases in float64."""
    assert layer.bias is not None
    return layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
