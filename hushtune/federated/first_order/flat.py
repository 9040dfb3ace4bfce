"""The moving parameters as one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hushtune.federated.codecs.layers import Layer, slices_of


class Flat:
    """Moving parameters, one behind the other in the order of their names' mapping.

    Args:
        parameters: float32 tensors by name.

    Attributes:
        layers: names and sizes.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = list(parameters.values())
        self.layers = tuple(Layer(name, each.numel()) for name, each in parameters.items())
        self._slices = slices_of(self.layers)

    @property
    def dimension(self) -> int:
        """d."""
        return self._slices[-1].stop

    def vector(self, tensors: Sequence[Tensor]) -> np.ndarray:
        """(d,) float64 of one tensor for each parameter."""
        flat = np.empty(self.dimension, dtype=np.float64)
        for place, tensor in zip(self._slices, tensors, strict=True):
            flat[place] = tensor.detach().reshape(-1).cpu().numpy()
        return flat

    def values(self) -> np.ndarray:
        """(d,) float64 of the parameters."""
        return self.vector(self._parameters)

    def tensors(self, vector: np.ndarray) -> dict[str, Tensor]:
        """The parts of (d,) float64 by name, in the parameters' shapes."""
        return {
            layer.name: torch.from_numpy(vector[place]).reshape(parameter.shape)
            for layer, place, parameter in zip(
                self.layers, self._slices, self._parameters, strict=True
            )
        }

    def put(self, values: np.ndarray) -> None:
        """Set the parameters to (d,) float64, each rounded once."""
        with torch.no_grad():
            for given, parameter in zip(
                self.tensors(values).values(), self._parameters, strict=True
            ):
                parameter.copy_(given)
