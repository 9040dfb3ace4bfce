"""A private step, in the one order that the guarantee allows: charge, sample, compute, release.

`PrivateSteps` is made from an open ledger and nothing else that could contradict it: sampler, clip,
noise and number of steps are all read from the plan in the ledger's header, which is what
`hushtune privacy` accounts for. A training loop receives this object and gives it a function that
computes slopes; it has no other way to private data, and cannot run what is not accounted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from hushtune.privacy.boundary import AddNoise, Boundary
from hushtune.privacy.ledger import Ledger, StepFailed
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.sampling import PoissonSampler, RandomBytes

#: From the sampled units (ascending indices) and the charge's index to (rows, K) float64 slopes and
#: the unit that each row belongs to, (rows,); rows of a unit in the unit's own fixed order.
Slopes = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


class Releases(Protocol):
    """From slopes and the unit of each row to the K integers that may be published."""

    def release(self, scalars: np.ndarray, unit_of_row: np.ndarray) -> tuple[int, ...]: ...


class Steps:
    """Steps of a run whose ledger is open: those released already, and those to come.

    Not made directly: `PrivateSteps` below, or its counterpart without privacy in `hushtune.plain`.

    Attributes:
        ledger: the open ledger.
    """

    def __init__(self, ledger: Ledger, sampler: PoissonSampler, boundary: Releases) -> None:
        self.ledger = ledger
        self._sampler = sampler
        self._boundary = boundary

    @property
    def left(self) -> int:
        """Steps of the plan that have not been charged."""
        return self.ledger.header["steps"] - self.ledger.charges

    def step(self, slopes: Slopes) -> tuple[int, tuple[int, ...]]:
        """Charge a step, sample units, compute their slopes, release; returns index and integers.

        The charge is durable before anybody is sampled and the release before it is returned.
        Sample and slopes live in this call and die with it.

        Raises:
            BudgetSpent: all planned steps have been charged.
            OSError: the ledger could not be made durable; the step is charged and lost.
            StepFailed: `slopes` or the release failed; it is never tried again, and nothing of what
                was computed is said.
        """
        charge = self.ledger.charge()
        released = self._release(slopes, charge)
        self.ledger.release(charge, released)
        return charge, released

    def _release(self, slopes: Slopes, charge: int) -> tuple[int, ...]:
        try:
            return self._boundary.release(*slopes(self._sampler.sample(), charge))
        except Exception as error:
            # The error's text and frames may hold private values; only its kind may leave.
            failure = type(error).__name__
        raise StepFailed(f"step {charge} failed with {failure}; its charge is spent.")


class PrivateSteps(Steps):
    """The steps that the plan in the ledger's header accounts for, and no others.

    Args:
        ledger: an open ledger, marked private.
        units: number of units in the data set; the plan's `population` is what is public.
        random_bytes, add_noise: replace the sources of sampling and of noise, for tests only;
            nothing that reads a configuration or a command line can reach them. The ledger must
            then be marked as not private.

    Attributes:
        plan: the plan, as the ledger's header has it.

    Raises:
        ValueError: if the ledger's mark does not fit.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        units: int,
        random_bytes: RandomBytes | None = None,
        add_noise: AddNoise | None = None,
    ) -> None:
        injected = random_bytes is not None or add_noise is not None
        if injected and ledger.header["private"]:
            raise ValueError("Expected the ledger to be marked NOT PRIVATE: noise was injected.")
        if not injected and not ledger.header["private"]:
            raise ValueError("Expected a ledger that is marked private.")
        self.plan = PrivacyPlan.from_json(ledger.header["plan"])
        sampler = PoissonSampler(
            units=units, probability=self.plan.sampling_probability, random_bytes=random_bytes
        )
        super().__init__(ledger, sampler, Boundary(self.plan, add_noise=add_noise))
