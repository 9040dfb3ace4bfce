"""Training without privacy, for comparison (`mezo`): no clip, no noise, the same record.

Nothing here protects anything. It stands apart from `hushtune.privacy` so that no switch inside
the boundary can turn protection off.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Slopes are recorded in multiples of this.
_GRID = 2.0**-20

#: Larger slopes than this are cut off, so that sums fit into int64.
_LARGEST = 2.0**20


@dataclass(frozen=True, kw_only=True)
class PlainPlan:
    """Poisson-sampled steps whose exact mean slopes are recorded as integers. NOT PRIVATE."""

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

    injected = False

    def release(
        self, scalars: np.ndarray, unit_of_row: np.ndarray, combine: str
    ) -> tuple[int, ...]:
        """The sum over units of their combined slopes, rounded to integers of the grid."""
        finite = np.clip(np.nan_to_num(scalars, posinf=0.0, neginf=0.0), -_LARGEST, _LARGEST)
        _, first_of, counts = np.unique(unit_of_row, return_inverse=True, return_counts=True)
        weights = 1.0 / counts[first_of] if combine == "mean" else np.ones(len(first_of))
        total = (finite * weights[:, None]).sum(axis=0)
        return tuple(int(value) for value in np.rint(total / _GRID))
