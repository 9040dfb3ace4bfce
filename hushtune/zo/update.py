"""Apply released values to the parameters: post-processing of public numbers.

    θ ← θ − η_t · Σ_k g_k z_k / K,     g = released · grid / expected units

The arithmetic is the same for training, resuming and replay, on every machine: scalars in IEEE
float64 by correctly rounded operations only, then float32 coefficients, added in the order of k in
one pass over each parameter. In 16-bit formats the result is rounded stochastically with public
random bits, so that updates smaller than half a unit in the last place are not lost.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from hushtune.zo.directions import Directions

#: Memory of the running mean square of released values, in steps 1 / (1 − β) = 20.
_BETA = 0.95


class StepSize(ABC):
    """η_t of each release, from public values only. Has state: apply releases in order."""

    @abstractmethod
    def of(self, charge: int, slopes: Sequence[float]) -> float:
        """η for the released mean slopes g of charge `charge`."""


class PlainStepSize(StepSize):
    """η as given, falling linearly to zero over `steps` or constant."""

    def __init__(self, *, learning_rate: float, schedule: str, steps: int) -> None:
        self._learning_rate = learning_rate
        self._schedule = schedule
        self._steps = steps

    def of(self, charge: int, slopes: Sequence[float]) -> float:
        del slopes
        return self._learning_rate * self.decay(charge)

    def decay(self, charge: int) -> float:
        """The schedule's factor: 1 at first."""
        return 1.0 if self._schedule == "constant" else 1.0 - charge / self._steps


class NormalisedStepSize(PlainStepSize):
    """η in units of what is released, so that defaults carry over between K, q and noise.

        η_t = a · w_t · √K / (m · √T · r_t)

    with m the typical slope of an example on public text, w_t the schedule and r_t the root mean
    square of released slopes, averaged over about 20 steps. Every coordinate then moves by
    a·w_t / (m·√T) a step, and a pure random walk over the whole run shifts the loss of a typical
    example by about a nats, whatever the noise, K and the number of parameters. r_t is computed
    from released values, so it costs no privacy.
    """

    def __init__(
        self, *, learning_rate: float, schedule: str, steps: int, typical_slope: float
    ) -> None:
        super().__init__(learning_rate=learning_rate, schedule=schedule, steps=steps)
        self._per_step = learning_rate / (typical_slope * math.sqrt(steps))
        self._mean_square = 0.0
        self._weight = 0.0

    def of(self, charge: int, slopes: Sequence[float]) -> float:
        # fsum is correctly rounded, so that no machine or version of Python differs.
        square = math.fsum(slope * slope for slope in slopes) / len(slopes)
        self._mean_square = _BETA * self._mean_square + (1 - _BETA) * square
        self._weight = _BETA * self._weight + (1 - _BETA)
        size = math.sqrt(self._mean_square / self._weight)
        if size == 0:
            return 0.0
        return self._per_step * self.decay(charge) * math.sqrt(len(slopes)) / size


class Update:
    """Moves the parameters along the released directions.

    Args:
        parameters: the moving parameters by name.
        scales: a public factor per parameter; its direction is `scales[name] * z`.
        directions: the public directions.
        unit: what one released integer stands for: grid / expected units.
        step_size: η_t.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        scales: Mapping[str, float],
        directions: Directions,
        *,
        unit: float,
        step_size: StepSize,
    ) -> None:
        self._parameters = parameters
        self._scales = scales
        self._directions = directions
        self._unit = unit
        self._step_size = step_size

    def replay(self, releases: Mapping[int, Sequence[int]]) -> None:
        """`apply` what charges released, in the order that they have there."""
        for charge, released in releases.items():
            self.apply(charge, released)

    def apply(self, charge: int, released: Sequence[int]) -> None:
        """Move the parameters by what charge `charge` released."""
        slopes = [self._unit * value for value in released]
        factor = -self._step_size.of(charge, slopes) / len(released)
        for name, parameter in self._parameters.items():
            coefficients = [factor * self._scales[name] * slope for slope in slopes]
            self._directions.move(name, parameter, coefficients, charge=charge)
