"""The training loop: the private side gives released integers, the public side applies them.

This page is where the two meet. `Steps` owns the order of a step (charge, sample, compute, release)
and everything that the guarantee rests on; what is computed here from private text goes into
it as slopes and nowhere else. Nothing of a step is logged, counted or timed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hushtune.methods import Settings
from hushtune.privacy.steps import Slopes, Steps, prepared
from hushtune.session import Session
from hushtune.tasks.data import LabelledText
from hushtune.units import Units
from hushtune.zo.estimators import moves, slopes
from hushtune.zo.head_losses import HeadLosses
from hushtune.zo.losses import MovedLosses
from hushtune.zo.update import Update

#: Called after each step with the number of steps charged so far; True ends the run there.
AfterStep = Callable[[int], bool | None]

#: What evaluates losses of the data's rows at moved parameters.
Losses = HeadLosses | MovedLosses


def train(
    session: Session,
    data: LabelledText,
    steps: Steps,
    *,
    after_step: AfterStep = lambda _: None,
) -> None:
    """Go from wherever the ledger is to the end of the plan.

    Releases that the ledger holds already are applied first, so resuming and starting are one
    operation. A charge without a release is skipped, never redrawn.

    Args:
        session: the model in its state before the first step, and the public settings.
        data: the private text.
        steps: sampling, clip and noise, bound to the open ledger.
        after_step: told of every step that is done.

    Raises:
        OSError: if the ledger cannot be made durable. The step is charged and lost.
        StepFailed: if the step's computation failed; it is never tried again at another shape.
        ValueError: if the ledger is that of another session, or nobody tried on this machine
            whether examples touch each other.
    """
    if steps.ledger.header["plan"] != session.plan.to_json():
        raise ValueError("Expected the ledger's plan to be the session's.")
    if steps.left and steps.ledger.header["private"] and not session.isolation_tried:
        raise ValueError("Expected a session whose isolation of examples was tried.")
    losses = prepared(lambda: session.losses(session.optimised_task(data)))
    take_steps(steps, losses, session.update(), session.settings, data, after_step=after_step)


def take_steps(
    steps: Steps,
    losses: Losses,
    update: Update,
    settings: Settings,
    data: Units,
    *,
    after_step: AfterStep = lambda _: None,
) -> None:
    """`train`, from what a session is made of.

    Args:
        steps: sampling, clip and noise, bound to the open ledger.
        losses: evaluates losses of the data's rows at moved parameters.
        update: applies releases to the parameters.
        settings: the method's.
        data: which rows a unit has.
        after_step: told of every step that is done; True ends the run there.
    """
    directions = steps.ledger.header["plan"]["directions"]
    slopes = slopes_of(losses, settings, data, directions=directions)
    update.replay(steps.ledger.releases)
    while steps.left:
        charge, released = steps.step(slopes)
        update.apply(charge, released)
        if after_step(steps.ledger.charges):
            break


def slopes_of(losses: Losses, settings: Settings, data: Units, *, directions: int) -> Slopes:
    """What a step asks for: from sampled units to the slopes of their rows.

    Args:
        losses, settings, data: as for `take_steps`.
        directions: K.
    """
    estimator, scale = settings.estimator, settings.perturbation_scale
    passes = moves(estimator, directions, scale)

    def of(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
        rows = data.rows_of(units)
        values = losses.at(rows, passes, charge=charge)
        return slopes(estimator, values, scale), data.unit_of_row[rows]

    return of
