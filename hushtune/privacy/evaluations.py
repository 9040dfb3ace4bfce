"""Evaluations of a run on private data: one release each, all from a budget of their own.

Every call has a ledger of its own in the run folder, `evaluation/000001.jsonl` and so on, each for
a plan of one step in which every unit takes part. Charge, crash and release mean in it what they
mean in a training's ledger. Its header names the hash of the last line of the one before, so that
they are one chain.

The budget is fixed by the first call that is charged: (ε, δ) for one unit, under one adjacency. A
call whose noise would make all calls together cost more is refused before it is charged. How much
noise a call has may depend on what others released: for Gaussian noise on full batches, whose
squared signal-to-noise ratios add up, a budget fixed beforehand holds all the same, at no extra
cost (Smith and Thakurta 2022). So the guarantee of all calls, those to come too, is the budget;
what they have cost so far is informational, since a stopping time chosen from releases is adaptive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hushtune.privacy import record as records
from hushtune.privacy.accounting import composed_epsilon
from hushtune.privacy.ledger import BudgetSpent, Ledger
from hushtune.privacy.plan import PrivacyPlan, require
from hushtune.privacy.record import LedgerError, Record

FOLDER = "evaluation"


@dataclass(frozen=True)
class Budget:
    """What all evaluations of a run may cost one unit."""

    epsilon: float
    delta: float
    unit: str
    adjacency: str

    def __post_init__(self) -> None:
        epsilon = self.epsilon
        require(0 < epsilon < math.inf, "budget", epsilon, "above 0 and finite")

    def cost(self, plans: Sequence[PrivacyPlan]) -> float:
        """ε of all these plans together, at the budget's δ."""
        phases = [plan.phase for plan in plans]
        return composed_epsilon(phases, delta=self.delta, adjacency=self.adjacency)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was evaluated, on what, and how what was released is read; all of it public.

    Attributes:
        model: hash of the last line of the ledger that the model comes from.
        data: the name of the data.
        disjoint: whether it was stated that no unit of it is in the training data.
        population: about how many units there are, if that was given.
        names: of the metrics.
        counted: what a row's weight is the number of.
        largest: what a row's value is cut off at.
        limit: what a unit counts for at most.
    """

    model: str
    data: str
    disjoint: bool
    population: int | None
    names: Sequence[str]
    counted: str
    largest: float
    limit: float


@dataclass(frozen=True)
class Call:
    """One evaluation, as its ledger has it."""

    path: Path
    record: Record
    plan: PrivacyPlan
    budget: Budget
    facts: Facts

    @property
    def released(self) -> tuple[int, ...] | None:
        """The integers that were released, if they were."""
        return self.record.releases.get(0)


@dataclass(frozen=True)
class Evaluations:
    """All evaluations of a run, in order."""

    run: Path
    calls: tuple[Call, ...]

    @property
    def charged(self) -> list[Call]:
        """Those that have cost something."""
        return [call for call in self.calls if call.record.charges]

    @property
    def budget(self) -> Budget | None:
        """What the first charged call fixed; None before it."""
        return next((call.budget for call in self.charged), None)

    @property
    def spent(self) -> float:
        """ε of all calls so far, at the budget's δ."""
        plans = [call.plan for call in self.charged]
        return self.budget.cost(plans) if self.budget is not None else 0.0

    @property
    def head(self) -> str | None:
        """Hash of the last line of the last ledger; kept elsewhere, it shows that none is gone."""
        return self.calls[-1].record.head if self.calls else None

    def require_room(self, plan: PrivacyPlan, budget: Budget) -> None:
        """Refuse a call that would cost more than is left.

        Raises:
            BudgetSpent: if it would.
            LedgerError: if `budget` is not the one that the first call fixed.
        """
        fixed = self.budget or budget
        if changed := _differing(fixed, budget):
            raise LedgerError(
                f"{self.run / FOLDER}: the first call fixed {changed}; all calls share these terms."
            )
        together = fixed.cost([*(call.plan for call in self.charged), plan])
        if together > fixed.epsilon:
            raise BudgetSpent(
                f"{self.run / FOLDER}: ε = {self.spent:.4g} of the budget of {fixed.epsilon:g} is "
                f"spent; with this call it would be {together:.4g}. Nothing was charged."
            )

    @property
    def next(self) -> Path:
        """The ledger of the next call."""
        return _path(self.run, len(self.calls) + 1)

    def begin(self, plan: PrivacyPlan, budget: Budget, facts: Facts) -> Ledger:
        """An open ledger for the next call.

        The caller holds the lock that `opened` takes.
        """
        self.require_room(plan, budget)
        header = {
            "format": 1,
            "run": secrets.token_hex(16),
            "private": True,
            "steps": plan.steps,
            "plan": plan.to_json(),
            "budget": dataclasses.asdict(budget),
            "previous": self.head,
            "evaluation": dataclasses.asdict(facts),
        }
        return Ledger(self.next, header)


def read(run: Path) -> Evaluations:
    """Read and verify all evaluations of a run folder; needs no lock.

    Raises:
        LedgerError: for a ledger that does not verify, is missing, or is not the next of the chain,
            or for more charges than the budget allows.
    """
    calls: list[Call] = []
    paths = sorted((run / FOLDER).glob("*.jsonl"))
    for number, path in enumerate(paths, start=1):
        if path == paths[-1] and b"\n" not in path.read_bytes():
            break  # its header was cut short: nothing was charged
        if path != _path(run, number):
            raise LedgerError(f"{_path(run, number)}: is missing, and {path.name} is there.")
        calls.append(_call(path, previous=calls[-1].record.head if calls else None))
    found = Evaluations(run, tuple(calls))
    for call in found.charged:
        if found.budget is not None and (changed := _differing(found.budget, call.budget)):
            raise LedgerError(f"{call.path}, line 1: the first call fixed {changed}.")
    if found.budget is not None and found.spent > found.budget.epsilon:
        raise LedgerError(f"{run / FOLDER}: the calls cost more than the budget of the first one.")
    return found


@contextlib.contextmanager
def opened(run: Path) -> Iterator[Evaluations]:
    """The evaluations of a run folder, while no other process can add one.

    Raises:
        LedgerError: if another process evaluates this run, or as `read`.
    """
    folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerError(
                f"{run}: another process is evaluating this run on private data."
            ) from None
        yield read(run)
    finally:
        os.close(folder)


def _path(run: Path, number: int) -> Path:
    return run / FOLDER / f"{number:06}.jsonl"


def _call(path: Path, *, previous: str | None) -> Call:
    record = records.read(path)
    header = record.header
    try:
        plan = PrivacyPlan.from_json(header["plan"])
        call = Call(path, record, plan, Budget(**header["budget"]), Facts(**header["evaluation"]))
        follows = header["previous"] == previous
        private = header["private"] is True
    except (KeyError, TypeError, ValueError):
        private, follows = False, False
    if not private or not _is_of_its_budget(call):
        raise LedgerError(f"{path}, line 1: not of an evaluation.")
    if not follows:
        raise LedgerError(f"{path}, line 1: does not follow from the ledger before it.")
    return call


def _is_of_its_budget(call: Call) -> bool:
    """Whether a call's plan is one full release under the budget's terms."""
    plan, budget = call.plan, call.budget
    return (
        plan.mechanism == "gaussian"
        and plan.steps == plan.sampling_probability == 1
        and plan.directions == 1 + len(call.facts.names)
        and (plan.delta, plan.unit, plan.adjacency) == (budget.delta, budget.unit, budget.adjacency)
    )


def _differing(fixed: Budget, other: Budget) -> str:
    """The terms of `fixed` that another one has otherwise, in words."""
    names = [field.name for field in dataclasses.fields(Budget)]
    shown = {"epsilon": "budget"}
    return ", ".join(
        f"{shown.get(name, name)} = {getattr(fixed, name)}"
        for name in names
        if getattr(fixed, name) != getattr(other, name)
    )
