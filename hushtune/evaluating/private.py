"""Noised metrics of a finished run on data that is private.

One step of the kind that training takes: charge, compute, release. Every unit takes part in it
(q = 1), so that nothing is sampled. What a row adds is a function of that row and the model alone:
micro-batches have the run's shapes, of one row where this machine shows rows of them to touch each
other, and prompts are completed one by one. Everything that is returned is computed from the
ledger, from what was released and public values.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hushtune.comparison.folder import require_task
from hushtune.config import Config, default_delta, from_values
from hushtune.evaluating.guarantee import describe_call, describe_evaluations
from hushtune.evaluating.ratios import vectors
from hushtune.evaluation import GivenRows, read_named
from hushtune.models.restore import load_tuned
from hushtune.privacy import PrivacyPlan, evaluations
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.accounting import validation
from hushtune.privacy.evaluations import Budget, Evaluations, Facts
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.plan import require
from hushtune.privacy.registry import RegisteredRun
from hushtune.privacy.steps import PrivateSteps, prepared
from hushtune.probe import isolated_shapes
from hushtune.tasks.measures import Measure
from hushtune.tasks.metrics import measure_of, score_rows
from hushtune.tasks.task import TextTask


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a private evaluation may cost, and whom.

    Attributes:
        epsilon: of this call alone.
        delta: of all calls together; None: that of the first call, for which it is that of the
            training, or what `auto` stands for there with `population` or as many units.
        budget: ε of all calls together; None: that of the first call, for which it is its own ε.
        unit: "example", or the column that names a unit; None: that of the first call, for which
            it is that of the training.
        population: about how many units there are, if that may be known; None: as many as in the
            training. δ has to be below 1 / population.
        limit: what a unit counts for at most: rows or, for perplexity, tokens; None: one row, or
            the run's longest text.
        disjoint: whether no unit of this data is in the training data.
    """

    epsilon: float
    delta: float | None = None
    budget: float | None = None
    unit: str | None = None
    population: int | None = None
    limit: float | None = None
    disjoint: bool = False

    def __post_init__(self) -> None:
        validation.check_epsilon(self.epsilon)
        population, limit = self.population, self.limit
        require(population is None or population >= 1, "population", population, "at least 1")
        require(limit is None or 0 < limit < math.inf, "limit", limit, "above 0 and finite")


def evaluate_on_private(
    run: Path, data: str, terms: Terms, *, given: GivenRows | None = None
) -> dict[str, Any]:
    """Charge the run's evaluation budget, and release the task's metrics with noise.

    Args:
        run: a run folder.
        data: rows as the run's task reads them; private. It may be the training data.
        terms: what it may cost.
        given: rows in memory, by a name that `data` has in place of a file.

    Raises:
        ConfigError, DataError, ValueError: what cannot be used, before anything is charged.
        BudgetSpent: if the budget has not enough left.
        LedgerError: if another process evaluates this run, or one of its ledgers does not verify.
        StepFailed: if the computation failed; its charge is spent.
    """
    record = ledgers.read(run / "ledger.jsonl")
    require_task(run, record.header)
    config = from_values(record.header["config"])
    with evaluations.opened(run) as held:
        budget = _budget(terms, held, config, record.header)
        tuned = load_tuned(run, record.header)
        measure = measure_of(tuned.readout)
        population = terms.population or record.header["plan"]["population"]
        plan = _plan(terms, budget, measure, population=population)
        limit = _limit(terms, measure, config)
        held.require_room(plan, budget)
        rows = read_named(data, _with_unit(config, budget.unit), given or {}, with_units=True)
        shapes = isolated_shapes(tuned.readout, tuned.shapes)
        task = prepared(lambda: TextTask(tuned.readout, rows, shapes))
        facts = Facts(
            model=record.head,
            data=data,
            disjoint=terms.disjoint,
            population=terms.population,
            limit=limit,
            **dataclasses.asdict(measure),
        )

        def numbers(units: np.ndarray, _: int) -> tuple[np.ndarray, np.ndarray]:
            weights, values = score_rows(task, alone=True)
            every = vectors(weights, values / measure.largest, rows.unit_of_row, most=limit)
            taken = rows.rows_of(units)
            return every[taken], rows.unit_of_row[taken]

        with held.begin(plan, budget, facts) as ledger:
            registered = _registered(config, terms, held.next, ledger)
            PrivateSteps(ledger, units=rows.units, registered=registered).step(numbers)
        done = evaluations.read(run)
    return describe_call(done.calls[-1]) | {
        "data_is_public": False,
        "evaluation": describe_evaluations(done),
    }


def _budget(terms: Terms, held: Evaluations, config: Config, header: dict[str, Any]) -> Budget:
    """What all calls may cost: as given, or as the first call fixed it."""
    fixed = held.budget
    if fixed is None:
        fixed = Budget(
            epsilon=terms.epsilon,
            delta=_default_delta(terms, header),
            unit=config.data.unit or "example",
            adjacency=config.privacy.adjacency,
        )
    given = {"epsilon": terms.budget, "delta": terms.delta, "unit": terms.unit}
    known = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(fixed, **known)


def _default_delta(terms: Terms, header: dict[str, Any]) -> float:
    of_training = header["plan"].get("delta") if terms.population is None else None
    return of_training or default_delta(
        "gaussian", terms.population or header["plan"]["population"]
    )


def _plan(terms: Terms, budget: Budget, measure: Measure, *, population: int) -> PrivacyPlan:
    return PrivacyPlan.for_epsilon(
        epsilon=terms.epsilon,
        delta=budget.delta,
        mechanism="gaussian",
        adjacency=budget.adjacency,  # type: ignore[arg-type]
        unit=budget.unit,
        combine="sum",
        population=population,
        expected_units=population,
        steps=1,
        directions=1 + len(measure.names),
        clip_norm=1.0,
    )


def _limit(terms: Terms, measure: Measure, config: Config) -> float:
    if terms.limit is not None:
        return terms.limit
    return 1.0 if measure.counted == "rows" else float(config.data.max_length)


def _with_unit(config: Config, unit: str) -> Config:
    column = None if unit == "example" else unit
    return dataclasses.replace(config, data=dataclasses.replace(config.data, unit=column))


def _registered(config: Config, terms: Terms, path: Path, ledger: Ledger) -> RegisteredRun | None:
    """Where the call is entered before it is charged, if the run is registered."""
    if config.privacy.registry is None:
        return None
    identity = config.data.identity or ""
    # Other people than those that were trained on, of whatever run: a data set of their own.
    data = f"{identity}, evaluation" if terms.disjoint else identity
    registry = config.privacy.registry
    return RegisteredRun(registry, data=data, where=str(path), ledger=ledger, kind="evaluation")
