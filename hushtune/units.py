"""Which rows of the data belong to which unit of privacy."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


class Units:
    """Rows that stand unit by unit.

    Attributes:
        unit_of_row: (rows,) int64, 0 … units-1; all rows of a unit stand together.
    """

    unit_of_row: np.ndarray

    @property
    def units(self) -> int:
        """Number of units of privacy."""
        return int(self.unit_of_row[-1]) + 1 if len(self.unit_of_row) else 0

    def rows_of(self, units: np.ndarray) -> np.ndarray:
        """All rows of the given units (ascending indices), units in order."""
        return np.flatnonzero(np.isin(self.unit_of_row, units))


def group(units: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order in which their units want them, and (rows,) the unit of each of those.

    Units are numbered as they first appear; the rows of one stay in their own order.
    """
    number_of: dict[Hashable, int] = {}
    unit_of_row = np.array([number_of.setdefault(unit, len(number_of)) for unit in units])
    order = np.argsort(unit_of_row, kind="stable")
    return order, unit_of_row[order]
