"""The training loop: charge, sample, compute, release, apply.

This page is where the private and the public side meet. Losses and slopes live between `sample`
and `release`, in local variables; what leaves the loop is the ledger's integers and the moved
parameters. Nothing else of a step is logged, counted or timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hushtune.plain import PlainSum
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.ledger import Ledger, StepFailed
from hushtune.privacy.sampling import PoissonSampler, representable_probability
from hushtune.session import Session
from hushtune.tasks.data import LabelledText
from hushtune.zo.estimators import Move, moves, slopes
from hushtune.zo.probe import Losses

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
    _require_one_plan(session, ledger, sampler, boundary)
    chosen, plan = session.settings, session.plan
    losses = session.losses(session.task(data))
    update = session.update()
    passes = moves(chosen.estimator, plan.directions, chosen.perturbation_scale)

    for charge, released in ledger.releases.items():
        update.apply(charge, released)

    while ledger.charges < plan.steps:
        charge = ledger.charge()
        released = _private_step(session, data, losses, passes, sampler, boundary, charge)
        ledger.release(charge, released)
        update.apply(charge, released)
        after_step(ledger.charges)


def _private_step(
    session: Session,
    data: LabelledText,
    losses: Losses,
    passes: Sequence[Move],
    sampler: PoissonSampler,
    boundary: Boundary | PlainSum,
    charge: int,
) -> tuple[int, ...]:
    """What charge `charge` releases. Private values live here, and die with this frame."""
    chosen = session.settings
    try:
        rows = data.rows_of(sampler.sample())
        values = losses.at(rows, passes, charge=charge)
        scalars = slopes(chosen.estimator, values, chosen.perturbation_scale)
        return boundary.release(scalars, data.unit_of_row[rows], session.config.data.combine)
    except Exception as error:
        # The error's text and frames may hold private values; only its kind may leave.
        failure = type(error).__name__
        rows = values = scalars = None
    raise StepFailed(f"step {charge} failed with {failure}; its charge is spent.")


def _require_one_plan(
    session: Session, ledger: Ledger, sampler: PoissonSampler, boundary: Boundary | PlainSum
) -> None:
    """What runs must be what the ledger accounts for."""
    private = ledger.header["private"]
    if (sampler.injected or boundary.injected) and private:
        raise ValueError("Expected the ledger to be marked NOT PRIVATE: noise was injected.")
    if isinstance(boundary, PlainSum) and private:
        raise ValueError("Expected a boundary with noise: the ledger is marked private.")
    if isinstance(boundary, Boundary) and boundary.plan != session.plan:
        raise ValueError("Expected the boundary to be made from the session's plan.")
    wanted = representable_probability(session.plan.sampling_probability)
    if sampler.probability != wanted and not sampler.injected:
        raise ValueError("Expected the sampler to have the plan's sampling probability.")
