"""Settings chosen privately: the best of a secret number of runs, paid for as a whole.

`plan_search` needs no data but the number of units. `tune` charges the search on disk, draws how
many runs there are, and for each, independently and with replacement, its configuration. All runs
stay in memory. The best, by its metric on public evaluation data or by a noised one on the training
data that the search's ε covers, is written as a run folder; of the
others nothing is kept, shown or counted. The guarantee of that folder is the search's
(`hushtune.privacy.accounting.search`).

What a run is here, one mechanism: draw a configuration, train, score. Runs share what does not
depend on them: the data as read, and the features that a frozen encoder gives of a text.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hushtune import config as configuration
from hushtune import run as runs
from hushtune import session as sessions
from hushtune.config import Config, ConfigError
from hushtune.config.searching import SearchConfig, configurations
from hushtune.ending import LEDGER, write_end
from hushtune.evaluating.noised_score import noised_score, score_plan
from hushtune.evaluation import Metrics, read_data
from hushtune.files import write_config
from hushtune.loading import Moving, is_head, load_moving
from hushtune.methods import Budget
from hushtune.models.save import refuse_base_folder
from hushtune.privacy import chain, registry
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.accounting import Phase
from hushtune.privacy.accounting.search import PrivateSearch, Training, calibrate_search
from hushtune.privacy.accounting.stopping import DISTRIBUTIONS
from hushtune.privacy.charged_search import ChargedSearch
from hushtune.privacy.drawing import SecretDraws
from hushtune.privacy.ledger import LedgerError
from hushtune.privacy.plan import SMALLEST_NOISE_SCALE, PrivacyPlan
from hushtune.privacy.sampling import representable_probability
from hushtune.privacy.steps import unspoken
from hushtune.privacy.unpublished import UnpublishedLedger
from hushtune.session import Prepared
from hushtune.tasks.data import LabelledText
from hushtune.tasks.metrics import evaluate, score
from hushtune.tasks.task import FeatureStore
from hushtune.trainer import train as train_steps

_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True)
class PlannedSearch:
    """A search, complete but for the model's own settings; no row was looked at.

    Attributes:
        configurations: what it chooses from.
        terms: what its ε follows from.
        budgets: directions, steps and batch of each.
        delta: δ of the guarantee.
        population: number of units, as it is public.
        moving: the model that all have in common, and the parameters that move.
        scoring: the release that is a run's score, where it is scored on the training data.
    """

    configurations: list[Config]
    terms: PrivateSearch
    budgets: list[Budget]
    delta: float
    population: int
    moving: Moving
    scoring: PrivacyPlan | None

    @property
    def epsilon(self) -> float:
        """ε of the whole search."""
        return self.terms.epsilon(self.delta)

    def trainings(self) -> list[Phase]:
        """What a run of each configuration does, with its noise."""
        return [self.terms.training(_training(budget, self.population)) for budget in self.budgets]


def plan_search(config: Config, search: SearchConfig, *, units: int) -> PlannedSearch:
    """The noise of all configurations, calibrated to `privacy.epsilon` of the whole search.

    Args:
        units: the number of units in the training data.

    Raises:
        ConfigError: a setting that cannot be used with this model or this number of units.
        ValueError: if no noise gives that ε.
    """
    choices = configurations(config, search)
    population = config.public_units(units)
    for each in choices:
        configuration.check_units(each, population)
    moving = load_moving(choices[0])
    head_only = is_head(moving[2])
    budgets = [
        sessions.budget_of(each, head_only=head_only, population=population) for each in choices
    ]
    delta = configuration.resolved_delta(config.privacy, population)
    scoring = None
    if search.score == "private":
        scoring = score_plan(config, search.score_noise, delta=delta, population=population)
    terms = calibrate_search(
        epsilon=config.privacy.epsilon or 0.0,
        delta=delta,
        stopping=DISTRIBUTIONS[search.distribution](search.expected_runs),
        trainings=list(dict.fromkeys(_training(each, population) for each in budgets)),
        noise_scale_integer=SMALLEST_NOISE_SCALE,
        scoring=None if scoring is None else scoring.phase,
    )
    return PlannedSearch(choices, terms, budgets, delta, population, moving, scoring)


def tune(
    config: Config, search: SearchConfig, *, planned: Callable[[PlannedSearch], None]
) -> dict[str, Any]:
    """Search, and leave the best run in the folder `config.output`; returns its summary.

    A search that is complete is left as it is; one that was cut short is lost.

    Args:
        planned: told of the search before it begins.

    Raises:
        ConfigError, DataError, CouplingError, ProbeError, ValueError: bad input, before the search
            is charged.
        LedgerError: the folder belongs to another run, is in use, or a search was lost there.
        StepFailed: a run failed. The search is charged and lost.
    """
    choices = configurations(config, search)
    folder = Path(config.output)
    refuse_base_folder(folder, config.model.name)
    record = folder.with_name(folder.name + ".search")
    if (folder / "summary.json").exists():
        summary = _finished(folder, choices, search)
        record.unlink(missing_ok=True)  # where the search was cut short after its last word
        return summary
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"output: {folder} holds something else; choose another folder.")
    with ChargedSearch(record) as charged:
        data, public = read_data(config)
        plan = plan_search(config, search, units=data.units)
        planned(plan)
        headers = _headers(plan, search)
        if config.privacy.registry is not None:
            _enter(config, plan)
        charged.charge({"search": search.to_json(), "config": config.to_json()})
        terms, scoring = plan.terms, plan.scoring
        del plan  # and with it the model: every run loads its own
        features: FeatureStore = {}
        winner = best_of(
            terms,
            headers,
            lambda header: _run(header, data, public, scoring, features),
            draws=SecretDraws(),
        )
        summary = _publish(*winner, public, folder)
        charged.ended()
    return summary


def best_of(
    terms: PrivateSearch,
    choices: Sequence[Mapping[str, Any]],
    run: Callable[[Mapping[str, Any]], tuple[float, _Outcome]],
    *,
    draws: SecretDraws,
) -> _Outcome:
    """The outcome of the best of a secret number of runs; of several best ones, the first.

    Runs are alike and independent, so that the first of several best ones is distributed as any
    of them, and says nothing of when it ran.

    Args:
        terms: of the search.
        choices: what the configurations are.
        run: trains and scores; the larger the score, the better.
        draws: of the number of runs and of their configurations.

    Raises:
        StepFailed: if a run failed; says nothing of which, nor of what was computed.
    """

    def search() -> _Outcome:
        best, kept = -float("inf"), None
        for _ in range(draws.number_of_runs(terms.stopping)):
            reached, outcome = run(choices[draws.below(len(choices))])
            if kept is None or reached > best:
                best, kept = reached, outcome
        assert kept is not None  # there is always a run
        return kept

    return unspoken(search, "the search failed with {}; it is charged and lost.")


def _training(budget: Budget, population: int) -> Training:
    probability = representable_probability(budget.batch / population)
    return Training(probability, budget.steps, budget.directions)


def _headers(plan: PlannedSearch, search: SearchConfig) -> list[dict[str, Any]]:
    """The ledger's header of each configuration; models are tried on public text only."""
    prepared: dict[tuple[Any, ...], Prepared] = {}
    headers = []
    for config, budget in zip(plan.configurations, plan.budgets, strict=True):
        seen = sessions.seen_by_probe(config, budget)
        if seen not in prepared:
            prepared[seen] = sessions.prepare(
                config, population=plan.population, moving=plan.moving
            )
        session = prepared[seen].session(config, search=plan.terms)
        headers.append(session.header | {"search": search.to_json()})
    return headers


def _run(
    header: Mapping[str, Any],
    data: LabelledText,
    public: LabelledText | None,
    scoring: PrivacyPlan | None,
    features: FeatureStore,
) -> tuple[float, tuple[UnpublishedLedger, dict[str, float]]]:
    """Train a configuration from the start and score it; nothing is written."""
    ledger = UnpublishedLedger(dict(header))
    session = sessions.resume(ledger.header)
    session.isolation_tried = True  # in this process, when the header was made
    session.features = features
    train_steps(session, data, runs.open_steps(ledger, data))
    metrics = {} if public is None else evaluate(session.task(public))
    reached = score(metrics) if scoring is None else noised_score(session, data, scoring)
    return reached, (ledger, metrics)


def _publish(
    ledger: UnpublishedLedger, metrics: dict[str, float], public: LabelledText | None, folder: Path
) -> dict[str, Any]:
    """Make the run folder of the winner from its ledger, all of it now; returns the summary.

    Made beside its place and moved there, so that it is there as a whole or not at all. No time and
    no memory is noted: those of the search, or of the run that came last.
    """
    session = sessions.resume(ledger.header)
    task = None if public is None else session.task(public)
    zero_shot = {} if task is None else evaluate(task)
    session.update().replay(ledger.releases)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    ledger.publish(unfinished / LEDGER)
    write_config(unfinished / "config.yaml", session.config)
    noted = Metrics(unfinished / "metrics.jsonl")
    if task is not None:
        noted.note(0, zero_shot)
        noted.note(session.plan.steps, metrics)
    noted.write()
    summary = write_end(
        session,
        unfinished,
        zero_shot=zero_shot,
        final=metrics,
        rows_cut=None if task is None else task.rows_cut,
        also={},
    )
    os.replace(unfinished, folder)
    chain.make_entry_durable(folder / LEDGER)
    return summary


def _finished(folder: Path, choices: Sequence[Config], search: SearchConfig) -> dict[str, Any]:
    """The summary of a search that ended in this folder.

    Raises:
        LedgerError: if another one did, or something else.
    """
    header = ledgers.read(folder / LEDGER).header
    ran = configuration.from_values(header["config"], source="ledger header")
    same = header.get("search") == chain.as_written(search.to_json())
    if not same or all(configuration.differences(ran, each) for each in choices):
        raise LedgerError(
            f"{folder} belongs to a different run: repeat the original command, or choose another "
            "output folder."
        )
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def _enter(config: Config, plan: PlannedSearch) -> None:
    """Enter the search in the registry, as something spent by its (ε, δ)."""
    assert config.privacy.registry is not None
    registry.enter_spending(
        config.privacy.registry,
        data=config.data.identity or "",
        what="search",
        epsilon=plan.epsilon,
        delta=plan.delta,
        unit=config.protected,
        adjacency=config.privacy.adjacency,
        note=config.output,
    )
