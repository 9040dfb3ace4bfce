"""What moves the parameters along decoded updates, in float64 operations that round correctly.

Post-processing of public numbers: the same bits on every machine.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

#: Of Adam (Kingma and Ba, 2015), with their values.
_BETAS = (0.9, 0.999)
_SMALLEST = 1e-8


class Optimizer(ABC):
    """Has state: give it updates in the order of their rounds."""

    @abstractmethod
    def step(self, update: np.ndarray, rate: float) -> np.ndarray:
        """(d,) float64 to take off the parameters.

        Args:
            update: (d,) float64, the decoded mean update.
            rate: η of this round.
        """


class Sgd(Optimizer):
    """η·û: with η = 1 and updates of clients, federated averaging."""

    def step(self, update: np.ndarray, rate: float) -> np.ndarray:
        return rate * update


class Adam(Optimizer):
    """Adam on the server (Reddi et al., 2021).

    Args:
        dimension: d.
        scale: the length of an update, which the smallest root mean square is a share of.
    """

    def __init__(self, dimension: int, scale: float) -> None:
        self._mean = np.zeros(dimension)
        self._square = np.zeros(dimension)
        self._smallest = _SMALLEST * scale
        # Products rather than powers, whose last bit depends on the machine.
        self._weights = [1.0, 1.0]

    def step(self, update: np.ndarray, rate: float) -> np.ndarray:
        first, second = _BETAS
        self._weights = [self._weights[0] * first, self._weights[1] * second]
        self._mean = first * self._mean + (1 - first) * update
        self._square = second * self._square + (1 - second) * (update * update)
        size = np.sqrt(self._square) / math.sqrt(1 - self._weights[1])
        return rate / (1 - self._weights[0]) * self._mean / (size + self._smallest)


def optimizer_of(kind: str, *, dimension: int, scale: float) -> Optimizer:
    """The optimiser of this name; see `Adam` for the numbers."""
    return Adam(dimension, scale) if kind == "adam" else Sgd()
