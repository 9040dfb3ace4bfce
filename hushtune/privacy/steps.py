"""A private step, in the one order that the guarantee allows: charge, sample, compute, release.

`PrivateSteps` is made from an open ledger and nothing else that could contradict it: sampler, clip,
noise and number of steps are all read from the plan in the ledger's header, which is what
`hushtune privacy` accounts for. A training loop receives this object and gives it a function that
computes slopes; it has no other way to private data, and cannot run what is not accounted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

from hushtune.privacy.boundary import AddNoise, Boundary
from hushtune.privacy.failing import panics_as_errors
from hushtune.privacy.ledger import Ledger, StepFailed
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.registry import RegisteredRun
from hushtune.privacy.sampling import PoissonSampler, RandomBytes

#: From the sampled units (ascending indices) and the charge's index to (rows, K) float64 slopes and
#: the unit that each row belongs to, (rows,); rows of a unit in the unit's own fixed order.
Slopes = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


Computed = TypeVar("Computed")


class Releases(Protocol):
    """From slopes and the unit of each row to the K integers that may be published."""

    def release(self, scalars: np.ndarray, unit_of_row: np.ndarray) -> tuple[int, ...]: ...


class Charged:
    """A run's steps, each of which is charged before anything of it is computed.

    Args:
        ledger: open.
        registered: where steps are reserved before they are charged, if anywhere.

    Attributes:
        ledger: the open ledger.
    """

    def __init__(self, ledger: Ledger, registered: RegisteredRun | None = None) -> None:
        self.ledger = ledger
        self._registered = registered

    @property
    def left(self) -> int:
        """Steps of the plan that have not been charged."""
        return self.ledger.header["steps"] - self.ledger.charges

    def charge(self) -> int:
        """Charge the next step durably; returns its index.

        Raises:
            BudgetSpent: all planned steps have been charged.
            OSError: the ledger could not be made durable; the step is charged and lost.
            RegistryError: a copy of this run has taken the step already.
        """
        if self._registered is not None:
            self._registered.cover(self.ledger.charges)
        return self.ledger.charge()


class Steps(Charged):
    """Steps of a run whose ledger is open: those released already, and those to come.

    Not made directly: `PrivateSteps` below, or its counterpart without privacy in `hushtune.plain`.
    """

    def __init__(
        self,
        ledger: Ledger,
        sampler: PoissonSampler,
        boundary: Releases,
        registered: RegisteredRun | None = None,
    ) -> None:
        super().__init__(ledger, registered)
        self._sampler = sampler
        self._boundary = boundary

    def step(self, slopes: Slopes) -> tuple[int, tuple[int, ...]]:
        """Charge a step, sample units, compute their slopes, release; returns index and integers.

        The charge is durable before anybody is sampled and the release before it is returned.
        Sample and slopes live in this call and die with it.

        Raises:
            BudgetSpent, OSError, RegistryError: as for `charge`.
            StepFailed: `slopes` or the release failed; it is never tried again, and nothing of what
                was computed is said.
        """
        charge = self.charge()
        released = self._release(slopes, charge)
        self.ledger.release(charge, released)
        return charge, released

    def _release(self, slopes: Slopes, charge: int) -> tuple[int, ...]:
        return unspoken(
            lambda: self._boundary.release(*slopes(self._sampler.sample(), charge)),
            f"step {charge} failed with {{}}; its charge is spent.",
        )


def prepared(prepare: Callable[[], Computed]) -> Computed:
    """What is made of private texts before steps; says nothing of what it met.

    Raises:
        StepFailed: if it failed.
    """
    return unspoken(prepare, "preparing the texts failed with {}.")


def unspoken(
    compute: Callable[[], Computed], failed: str, error: type[Exception] = StepFailed
) -> Computed:
    """What is computed of private values, of which nothing is said but the result.

    What an error or a warning says, and the frames that an error keeps, may hold private values.
    So none of them leaves: what is raised is new, and knows a kind at most.

    Args:
        failed: what is said of an error; {} stands for its kind.
        error: the class of what is raised then.
    """
    try:
        with warnings.catch_warnings(), panics_as_errors():
            warnings.simplefilter("ignore")
            return compute()
    except Exception as met:
        kind = kind_of(met)
    except KeyboardInterrupt:
        kind = ""
    if not kind:
        raise KeyboardInterrupt
    raise error(failed.format(kind))


def kind_of(error: Exception) -> str:
    """The name of the error's nearest kind that Python itself defines, such as RuntimeError."""
    known = (kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
    return next(known).__name__


class PrivateSteps(Steps):
    """The steps that the plan in the ledger's header accounts for, and no others.

    Args:
        ledger: an open ledger, marked private.
        units: number of units in the data set; the plan's `population` is what is public.
        registered: where steps are reserved before they are charged, if anywhere.
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
        registered: RegisteredRun | None = None,
        random_bytes: RandomBytes | None = None,
        add_noise: AddNoise | None = None,
    ) -> None:
        injected = random_bytes is not None or add_noise is not None
        if injected and ledger.header["private"]:
            raise ValueError("Expected the ledger to be marked NOT PRIVATE: noise was injected.")
        if not injected and not ledger.header["private"]:
            raise ValueError("Expected a ledger that is marked private.")
        self.plan: PrivacyPlan = PrivacyPlan.from_json(ledger.header["plan"])
        sampler = PoissonSampler(
            units=units, probability=self.plan.sampling_probability, random_bytes=random_bytes
        )
        boundary = Boundary(self.plan, add_noise=add_noise)
        super().__init__(ledger, sampler, boundary, registered)
