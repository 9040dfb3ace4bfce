"""A run folder: configuration, ledger, guarantee, metrics, model.

`train` makes one and goes on with one that was interrupted; `replay` makes the model again from
the ledger and the base model alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from hushtune import config as configuration
from hushtune import evaluation, opening
from hushtune.config import Config
from hushtune.ending import LEDGER, summary_of, write_end
from hushtune.evaluation import Evaluations, GivenRows, Metrics, read_data
from hushtune.files import write_config
from hushtune.memory import peak_gpu_memory, peak_memory
from hushtune.models.save import refuse_base_folder, save_model
from hushtune.opening import RunSession
from hushtune.plain import PlainSteps
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger, LedgerError
from hushtune.privacy.registry import RegisteredRun
from hushtune.privacy.steps import PrivateSteps, Steps
from hushtune.report.card import model_card
from hushtune.session import Session
from hushtune.settling import registered_run
from hushtune.tasks.data import LabelledText
from hushtune.tasks.task import FeatureStore
from hushtune.trainer import AfterStep
from hushtune.trainer import train as train_steps

#: Takes the steps that an open ledger leaves, reserved where runs are registered; see `carry_out`.
TakeSteps = Callable[[Ledger, RegisteredRun | None, AfterStep], dict[str, Any]]


class Progress(evaluation.Progress, Protocol):
    """What a person sees while a run goes on: public values only."""

    def started(self, session: RunSession, charges: int) -> None:
        """The session is ready and `charges` steps have been charged before."""
        ...


def train(
    config: Config,
    progress: Progress,
    *,
    features: FeatureStore | None = None,
    given: GivenRows | None = None,
) -> dict[str, Any]:
    """Train, or go on training, in the folder `config.output`; returns the summary.

    A run that is complete is left as it is.

    Args:
        features: a frozen encoder's features of texts seen before, shared between runs of the
            same encoder in one process.
        given: rows in memory, by the name that the configuration has in place of a file.

    Raises:
        ConfigError, DataError, CouplingError, ProbeError, ValueError: bad input, before any
            budget is spent.
        LedgerError: the folder belongs to another run or is in use.
    """
    start = time.monotonic()
    configuration.check(config)
    data, public = read_data(config, given)
    folder = Path(config.output)
    refuse_base_folder(folder, config.model.name)
    record = ledgers.begun(folder / LEDGER)
    session = open_session(config, folder / LEDGER, record, units=data.units)
    assert isinstance(session, Session), "the configuration was checked"
    if features is not None:
        session.features = features

    def take(
        ledger: Ledger, registered: RegisteredRun | None, after_step: AfterStep
    ) -> dict[str, Any]:
        to_take = open_steps(ledger, data, registered)
        train_steps(session, data, to_take, after_step=after_step)
        return {}

    return carry_out(config, session, public, progress, take, start=start)


def carry_out(
    config: Config,
    session: RunSession,
    public: LabelledText | None,
    progress: Progress,
    take: TakeSteps,
    *,
    start: float,
) -> dict[str, Any]:
    """All of a run but its steps, in the folder `config.output`; returns the summary.

    Args:
        config: as it is now; the session may have begun in another folder.
        session: of the run.
        public: evaluation data.
        take: takes all steps that are left; what it returns goes into the summary.
        start: when the run began, by the monotonic clock.

    Raises:
        LedgerError: the folder belongs to another run or is in use.
    """
    folder, steps = Path(config.output), session.plan.steps
    metrics = Metrics(folder / "metrics.jsonl")
    evaluations = Evaluations(
        session.task, public, metrics, progress, every=config.eval_every, steps=steps
    )
    with Ledger(folder / LEDGER, session.header) as ledger:
        if (summary := summary_of(folder, ledger)) is not None:
            return summary
        registered = registered_run(ledger, where=config.output)
        write_config(folder / "config.yaml", config)
        progress.started(session, ledger.charges)
        zero_shot = evaluations.at(0, "zero-shot")
        also = take(ledger, registered, evaluations.after_step)
        final = evaluations.at(steps, "private" if session.header["private"] else "trained")
        metrics.write()
        return write_end(
            session,
            folder,
            zero_shot=zero_shot,
            final=final,
            rows_cut=evaluations.rows_cut,
            also=also | spent(start),
        )


def spent(start: float) -> dict[str, int | None]:
    """Seconds since `start` of the monotonic clock and peak memory, rounded, for a summary."""
    return {
        "seconds": round(time.monotonic() - start),
        "peak_rss_mib": peak_memory(),
        "peak_gpu_mib": peak_gpu_memory(),
    }


def open_session(
    config: Config, ledger: Path, record: ledgers.Record | None, *, units: int
) -> RunSession:
    """The session of a new run, or the one that the ledger in the run folder began with.

    Args:
        record: what that ledger says, if there is one.
        units: the number of units in the data.
    """
    if record is None:
        return opening.begin(config, units=units)
    header = record.header
    changed = configuration.differences(configuration.from_values(header["config"]), config)
    if changed:
        raise LedgerError(
            f"{ledger} belongs to a different run ({', '.join(changed)} differ): repeat the "
            "original command, or choose another output folder."
        )
    if header["plan"]["population"] != config.public_units(units):
        raise LedgerError(
            f"{config.data.train} has {units} units, the run in {ledger.parent} began with "
            f"{header['plan']['population']}: restore the data, or choose another output folder."
        )
    session = opening.resume(header)
    if header["private"] and record.charges < session.plan.steps:
        session.require_isolation()
    return session


def open_steps(
    ledger: Ledger, data: LabelledText, registered: RegisteredRun | None = None
) -> Steps:
    """What the ledger's header says is to be run on `data`."""
    if ledger.header["private"]:
        return PrivateSteps(ledger, units=data.units, registered=registered)
    return PlainSteps(ledger, units=data.units)


def replay(ledger: Path, *, model: str | None, out: Path) -> RunSession:
    """The tuned model from the ledger and the base model, bit for bit; written to `out`."""
    record = ledgers.read(ledger)
    session = opening.resume(record.header, model=model)
    update = session.update()
    update.replay(record.releases)
    save_model(session, out, card=model_card(session.header, tune=session.tune))
    return session
