"""The textbook loop of zeroth-order optimisation, as a yardstick: perturb in place, and restore.

This is Algorithm 1 of MeZO (Malladi et al., 2023): the seed of torch's generator is set again for
every pass over the parameters, and each pass draws the same normal numbers anew. Floating-point
addition is not undone by subtraction, so the parameters do not return to where they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn


class InPlace:
    """Moves parameters along one direction a step, without privacy.

    Args:
        parameters: the moving parameters by name.
        loss: the mean loss of a step's texts at the parameters as they are.
        scale: λ.
        learning_rate: η.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        loss: Callable[[], float],
        scale: float,
        learning_rate: float,
    ) -> None:
        self._parameters = list(parameters.values())
        self._loss = loss
        self._scale = scale
        self._learning_rate = learning_rate

    def step(self, seed: int) -> None:
        """One step along the direction of this seed."""
        self._add(seed, -self._learning_rate * self.slope(seed))

    def slope(self, seed: int) -> float:
        """(ℓ(θ + λz) − ℓ(θ − λz)) / 2λ; moves the parameters there, back, and nearly home."""
        self._add(seed, self._scale)
        above = self._loss()
        self._add(seed, -2 * self._scale)
        below = self._loss()
        self._add(seed, self._scale)
        return (above - below) / (2 * self._scale)

    def _add(self, seed: int, factor: float) -> None:
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in self._parameters:
                z = torch.normal(
                    0.0, 1.0, parameter.shape, dtype=parameter.dtype, device=parameter.device
                )
                parameter.add_(z, alpha=factor)
