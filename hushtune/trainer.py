"""The training loop: charge, sample, compute, release, apply.

This page is where the private and the public side meet. Losses and slopes live between `sample`
and `release`, in local variables; what leaves the loop is the ledger's integers and the moved
parameters. Nothing else of a step is logged, counted or timed.
"""

from __future__ import annotations

from collections.abc import Callable

from hushtune.plain import PlainSum
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.ledger import Ledger, StepFailed
from hushtune.privacy.sampling import PoissonSampler
from hushtune.session import Session
from hushtune.tasks.data import LabelledText
from hushtune.zo.estimators import moves, slopes

#: Called after each step with the number of steps charged so far.
AfterStep = Callable[[int], None]


def train(
    session: Session,
    data: LabelledText,
    ledger: Ledger,
    sampler: PoissonSampler,
    boundary: Boundary | PlainSum,
    *,
    after_step: AfterStep = lambda _: None,
) -> None:
    """Go from wherever the ledger is to the end of the plan.

    Releases that the ledger holds already are applied first, so resuming and starting are one
    operation. A charge without a release is skipped, never redrawn.

    Raises:
        OSError: if the ledger cannot be made durable. The step is charged and lost.
        StepFailed: if the step's computation failed; it is never tried again at another shape.
        ValueError: if noise or sampling were injected and the ledger does not say so.
    """
    if (sampler.injected or boundary.injected) and ledger.header["private"]:
        raise ValueError("Expected the ledger to be marked NOT PRIVATE: noise was injected.")
    chosen, plan = session.settings, session.plan
    losses = session.losses(session.task(data))
    update = session.update()
    passes = moves(chosen.estimator, plan.directions, chosen.perturbation_scale)

    for charge, released in ledger.releases.items():
        update.apply(charge, released)

    while ledger.charges < plan.steps:
        charge = ledger.charge()
        failure = None
        try:
            rows = data.rows_of(sampler.sample())
            values = losses.at(rows, passes, charge=charge)
            scalars = slopes(chosen.estimator, values, chosen.perturbation_scale)
            units = data.unit_of_row[rows]
            released = boundary.release(scalars, units, session.config.data.combine)
        except Exception as error:
            # The error's text and frames may hold private values; only its kind may leave. It is
            # raised outside of this block so that not even a crash reporter finds them.
            failure = type(error).__name__
        if failure is not None:
            raise StepFailed(f"step {charge} failed with {failure}; its charge is spent.")
        ledger.release(charge, released)
        update.apply(charge, released)
        after_step(ledger.charges)
