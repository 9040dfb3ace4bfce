"""An owner's data as a round needs it: parts of it, and what of it a model can read.

Before the first round a client tokenises its texts, and may run frozen layers over them. Some text
may be too long for the shapes of a run, or be a conversation that the chat format cannot say. If
that ended the client's round, whether it answers would tell of one text, and no noise covers that.
So the unit of such a text counts as zeros, as does one that fails later.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hushtune.opening import RunSession, RunUpdate
from hushtune.privacy.steps import Slopes
from hushtune.tasks.data import LabelledText


def partition(data: LabelledText, rows: np.ndarray) -> LabelledText:
    """Those rows of the data whose units are theirs alone: whole units, ascending rows."""
    _, unit_of_row = np.unique(data.unit_of_row[rows], return_inverse=True)
    return LabelledText([data.texts[row] for row in rows], data.labels[rows], unit_of_row)


def slopes_of_usable(
    session: RunSession,
    data: LabelledText,
    update: RunUpdate,
    *,
    failed: Callable[[Exception], None],
) -> Slopes:
    """What rounds ask for of the data; a unit that cannot be prepared has no rows in it.

    Args:
        session: of the run.
        data: an owner's.
        update: as `session.slopes` takes it.
        failed: told of what went wrong with a unit; private.

    How long this takes, the server sees. With texts that cannot be read it is little more than
    without: they are found by reading each unit, which is much less than a forward pass. Where a
    forward pass fails, frozen layers are computed in every round instead of now.
    """
    try:
        return session.slopes(data, update)
    except Exception as error:
        failed(error)

    def can_be_read(unit: int) -> bool:
        rows = data.rows_of(np.array([unit]))
        try:
            session.read(partition(data, rows))
        except Exception as error:
            numbers = ", ".join(map(str, (rows + 1).tolist()))
            failed(ValueError(f"row {numbers} of the data counts as zeros: {error}"))
            return False
        return True

    usable = np.array([unit for unit in range(data.units) if can_be_read(unit)], dtype=np.int64)
    rest = partition(data, data.rows_of(usable))
    try:
        of_rest = session.slopes(rest, update)
    except Exception as error:
        failed(error)
        # What fails in a forward pass does so in the rounds whose sample has it.
        of_rest = session.slopes(rest, update, ahead=False)

    def slopes(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
        values, unit_of_row = of_rest(np.flatnonzero(np.isin(usable, units)), charge)
        return values, usable[unit_of_row]

    return slopes
