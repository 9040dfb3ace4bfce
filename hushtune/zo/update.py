"""Apply released values to the parameters: post-processing of public numbers.

    θ ← θ − η_t · Σ_k g_k z_k / K,     g = released · grid / expected units

The arithmetic is the same for training, resuming and replay, on every machine: float32
coefficients, added in the order of k. In 16-bit formats the result is rounded stochastically with
public random bits, so that updates smaller than half a unit in the last place are not lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hushtune.zo.directions import Directions


class Update:
    """Plain gradient descent along the released directions.

    Args:
        parameters: the moving parameters by name.
        scales: a public factor per parameter; its direction is `scales[name] * z`.
        directions: the public directions.
        unit: what one released integer stands for: grid / expected units.
        learning_rate: η of the first step.
        schedule: "constant", or "linear" down to zero over `steps` charges.
        steps: planned number of charges.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        scales: Mapping[str, float],
        directions: Directions,
        *,
        unit: float,
        learning_rate: float,
        schedule: str,
        steps: int,
    ) -> None:
        self._parameters = parameters
        self._scales = scales
        self._directions = directions
        self._unit = unit
        self._learning_rate = learning_rate
        self._schedule = schedule
        self._steps = steps

    def apply(self, charge: int, released: Sequence[int]) -> None:
        """Move the parameters by what charge `charge` released."""
        rate = self._learning_rate * self._decay(charge)
        factor = -rate * self._unit / len(released)
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                coefficients = [factor * self._scales[name] * value for value in released]
                change = self._directions.combination(name, coefficients, charge=charge)
                moved = parameter.detach().float() + change.to(parameter.device)
                parameter.copy_(
                    self._directions.stochastic_round(name, moved, parameter.dtype, charge=charge)
                )

    def _decay(self, charge: int) -> float:
        return 1.0 if self._schedule == "constant" else 1.0 - charge / self._steps
