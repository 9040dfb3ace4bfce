"""The training loop: the private side gives released integers, the public side applies them.

This page is where the two meet. `Steps` owns the order of a step (charge, sample, compute, release)
and everything that the guarantee rests on; what is computed here from private text goes into
it as slopes and nowhere else. Nothing of a step is logged, counted or timed.
"""

from __future__ import annotations

from collections.abc import Callable

from hushtune.privacy.steps import Slopes, Steps
from hushtune.session import Session
from hushtune.tasks.data import LabelledText
from hushtune.zo.update import Update

#: Called after each step with the number of steps charged so far; True ends the run there.
AfterStep = Callable[[int], bool | None]


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
    update = session.update()
    slopes = session.slopes(data, update)
    take_steps(steps, slopes, update, after_step=after_step)


def take_steps(
    steps: Steps,
    slopes: Slopes,
    update: Update,
    *,
    after_step: AfterStep = lambda _: None,
) -> None:
    """`train`, from what a session is made of.

    Args:
        steps: sampling, clip and noise, bound to the open ledger.
        slopes: of the rows of sampled units.
        update: applies releases to the parameters.
        after_step: told of every step that is done; True ends the run there.
    """
    update.replay(steps.ledger.releases)
    while steps.left:
        charge, released = steps.step(slopes)
        update.apply(charge, released)
        if after_step(steps.ledger.charges):
            break
