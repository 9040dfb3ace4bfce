"""The order of a step and what the ledger remembers: a check on `PrivateSteps`, and faults in it.

The check lives through two power cuts and a failed step. What it looks at is on the disk, or is
what a training loop gets to see.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import BudgetSpent, Ledger, LedgerError
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.sampling import PoissonSampler
from hushtune.privacy.steps import PrivateSteps, Steps

UNCHARGED = "more samples than charges"
UNRECORDED = "a release left before it was recorded"
TOO_MANY = "more steps than planned"
TOLD = "an error told what was computed"

STEPS, UNITS, SECRET = 4, 40, "0.73519264"


class PowerCut(SystemExit):
    """Nothing after it runs."""


class Run:
    """One run in several processes, and an observer who counts what happens to the data."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.samples = 0
        self.errors: list[str] = []
        plan = PrivacyPlan.with_noise(
            mechanism="gaussian",
            delta=1e-5,
            adjacency="add-or-remove-one",
            unit="example",
            combine="mean",
            population=UNITS,
            sampling_probability=0.5,
            steps=STEPS,
            directions=2,
            clip_norm=1.0,
            noise_multiplier=1.0,
        )
        self.header = {"private": True, "steps": STEPS, "plan": plan.to_json()}
        sample = PoissonSampler.sample

        def counted(sampler: PoissonSampler) -> np.ndarray:
            self.samples += 1
            return sample(sampler)

        patch.setattr(PoissonSampler, "sample", counted)

    def process(self, *happens: Callable[[], None]) -> None:
        """Opens the ledger and takes steps to the end; these things happen in its first steps."""
        pending = list(happens)

        def slopes(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
            if pending:
                pending.pop(0)()
            return np.ones((len(units), 2)), units

        with Ledger(self.path, self.header) as ledger:
            steps = PrivateSteps(ledger, units=UNITS)
            while True:
                try:
                    charge, released = steps.step(slopes)
                except BudgetSpent:
                    break
                except LedgerError as error:
                    self.errors.append(str(error))
                    continue
                finally:
                    self.compare()
                assert ledgers.read(self.path).releases.get(charge) == released, UNRECORDED

    def compare(self) -> None:
        """What happened to the data, and was said of it, against what the disk says."""
        assert self.samples <= STEPS, TOO_MANY
        assert self.samples <= ledgers.read(self.path).charges, UNCHARGED
        assert not any(SECRET in error for error in self.errors), TOLD


def check(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Power is cut in the second step; the third fails; the fourth completes the plan."""
    run = Run(folder / "ledger.jsonl", patch)
    with pytest.raises(PowerCut):
        run.process(_nothing, _cut)
    run.compare()
    run.process(_fail)
    run.process()  # nothing is left to do
    run.compare()
    record = ledgers.read(run.path)
    assert (record.charges, sorted(record.releases)) == (STEPS, [0, 3])
    assert run.samples == STEPS


def _nothing() -> None: ...


def _cut() -> None:
    raise PowerCut


def _fail() -> None:
    raise RuntimeError(f"loss {SECRET}")


# Faults


def start_at_zero(patch: pytest.MonkeyPatch) -> None:
    _before_opening(patch, lambda path: path.unlink(missing_ok=True))


def forget_lost_steps(patch: pytest.MonkeyPatch) -> None:
    def take_back(path: Path) -> None:
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(lines[:-1] if b'{"charge"' in lines[-1] else lines))

    _before_opening(patch, take_back)


def charge_last(patch: pytest.MonkeyPatch) -> None:
    def step(self: Steps, slopes) -> tuple[int, tuple[int, ...]]:
        if not self.left:
            raise BudgetSpent
        computed = slopes(self._sampler.sample(), self.ledger.charges)
        charge = self.ledger.charge()
        released = self._boundary.release(*computed)
        self.ledger.release(charge, released)
        return charge, released

    patch.setattr(Steps, "step", step)


def redo_lost_steps(patch: pytest.MonkeyPatch) -> None:
    charge = Ledger.charge

    def charge_or_redo(self: Ledger) -> int:
        last = self.charges - 1
        return last if last >= 0 and last not in self.releases else charge(self)

    patch.setattr(Ledger, "charge", charge_or_redo)


def try_again(patch: pytest.MonkeyPatch) -> None:
    release = Steps._release

    def release_or_retry(self: Steps, slopes, charge: int) -> tuple[int, ...]:
        try:
            return release(self, slopes, charge)
        except ledgers.StepFailed:
            return release(self, slopes, charge)

    patch.setattr(Steps, "_release", release_or_retry)


def release_unrecorded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "release", lambda *_: None)


def one_step_more(patch: pytest.MonkeyPatch) -> None:
    def charge(self: Ledger) -> int:
        if self.charges > self.header["steps"]:
            raise BudgetSpent
        index = self.charges
        self._append({"charge": index})
        self._record.charges += 1
        return index

    patch.setattr(Ledger, "charge", charge)


def pass_errors_on(patch: pytest.MonkeyPatch) -> None:
    def release(self: Steps, slopes, charge: int) -> tuple[int, ...]:
        try:
            return self._boundary.release(*slopes(self._sampler.sample(), charge))
        except Exception as error:
            raise LedgerError(f"step {charge} failed: {error}") from None

    patch.setattr(Steps, "_release", release)


def _before_opening(patch: pytest.MonkeyPatch, act: Callable[[Path], None]) -> None:
    make = Ledger.__init__

    def opened(self: Ledger, path: str | os.PathLike[str], header: dict) -> None:
        act(Path(path))
        make(self, path, header)

    patch.setattr(Ledger, "__init__", opened)
