"""Training without privacy, for comparison (`mezo`): no clip, no noise, the same record.

Nothing here protects anything. It stands apart from `hushtune.privacy` so that no switch inside
the boundary can turn protection off.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from hushtune.privacy.ledger import Ledger
from hushtune.privacy.plan import Combine
from hushtune.privacy.sampling import PoissonSampler, representable_probability
from hushtune.privacy.steps import Steps

#: Slopes are recorded in multiples of this.
_GRID = 2.0**-20

#: Larger slopes than this are cut off, so that sums fit into int64.
_LARGEST = 2.0**20


@dataclass(frozen=True, kw_only=True)
class PlainPlan:
    """Poisson-sampled steps whose exact mean slopes are recorded as integers. NOT PRIVATE."""

    combine: Combine
    population: int
    sampling_probability: float
    steps: int
    directions: int
    grid: float = _GRID

    @property
    def expected_units(self) -> float:
        """q·n, the constant that every sum is divided by."""
        return self.sampling_probability * self.population

    @property
    def noise_of_mean(self) -> float:
        """None is added."""
        return 0.0

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values, for the ledger's header."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PlainPlan:
        """The plan that `to_json` wrote."""
        return cls(**values)


class PlainSum:
    """Stands where the boundary stands, and lets everything through."""

    def __init__(self, plan: PlainPlan) -> None:
        self._combine = plan.combine

    def release(self, scalars: np.ndarray, unit_of_row: np.ndarray) -> tuple[int, ...]:
        """The sum over units of their combined slopes, rounded to integers of the grid."""
        finite = np.clip(np.nan_to_num(scalars, posinf=0.0, neginf=0.0), -_LARGEST, _LARGEST)
        _, first_of, counts = np.unique(unit_of_row, return_inverse=True, return_counts=True)
        weights = 1.0 / counts[first_of] if self._combine == "mean" else np.ones(len(first_of))
        total = (finite * weights[:, None]).sum(axis=0)
        return tuple(int(value) for value in np.rint(total / _GRID))


class PlainSteps(Steps):
    """The steps of a run without privacy.

    Args:
        ledger: an open ledger, marked as not private.
        units: number of units in the data set.

    Raises:
        ValueError: if the ledger is marked private.
    """

    def __init__(self, ledger: Ledger, *, units: int) -> None:
        if ledger.header["private"]:
            raise ValueError("Expected steps with noise: the ledger is marked private.")
        self.plan: PlainPlan = PlainPlan.from_json(ledger.header["plan"])
        probability = representable_probability(self.plan.sampling_probability)
        sampler = PoissonSampler(units=units, probability=probability)
        super().__init__(ledger, sampler, PlainSum(self.plan))
