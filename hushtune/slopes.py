"""From sampled units to the slopes of their rows along a step's directions."""

from __future__ import annotations

import numpy as np

from hushtune.methods import Settings
from hushtune.privacy.steps import Slopes
from hushtune.units import Units
from hushtune.zo.estimators import moves, slopes
from hushtune.zo.head_losses import HeadLosses
from hushtune.zo.losses import MovedLosses

#: What evaluates losses of the data's rows at moved parameters.
Losses = HeadLosses | MovedLosses


def slopes_of(losses: Losses, settings: Settings, data: Units, *, directions: int) -> Slopes:
    """What a step asks for: from sampled units to the slopes of their rows.

    Args:
        losses: evaluates losses of the data's rows at moved parameters.
        settings: the method's.
        data: which rows a unit has.
        directions: K.
    """
    estimator, scale = settings.estimator, settings.perturbation_scale
    passes = moves(estimator, directions, scale)

    def of(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
        rows = data.rows_of(units)
        values = losses.at(rows, passes, charge=charge)
        return slopes(estimator, values, scale), data.unit_of_row[rows]

    return of
