"""The server: it waits for clients, begins or goes on with a run, and leads its rounds.

The run folder is that of any run: `hushtune privacy`, `replay` and `verify` ask its ledger. The
server charges a round before it asks for it, and asks once. What a client answers is used if it can
be the client's share, and otherwise there is a line that says why not; the round is then completed
with the others, or, if too few are left, charged and skipped. A server that was killed goes on
where its ledger ends: with the next round.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

from hushtune import run as runs
from hushtune.config import Config
from hushtune.config.federated_checks import check_federated
from hushtune.ending import LEDGER, summary_of, write_end
from hushtune.evaluation import Evaluations, Metrics, read_public
from hushtune.federated.group import Group
from hushtune.federated.messages import Clients
from hushtune.files import write_config
from hushtune.models.save import refuse_base_folder
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.rounds import Rounds
from hushtune.session import Session
from hushtune.settling import registered_run


class Progress(runs.Progress, Protocol):
    """What a person sees while a federated run goes on."""

    def waiting(self, there: int, wanted: int) -> None:
        """So many clients of those that are wanted are there."""
        ...

    def fault(self, words: str) -> None:
        """A client, or a round as a whole, did not go as it should."""
        ...


def federate(config: Config, clients: Clients, progress: Progress) -> dict[str, Any]:
    """Lead a run, or go on with it, in the folder `config.output`; returns the summary.

    A run that is complete is left as it is.

    Args:
        config: with `federated.clients`. `data.train` is what clients call their own data.
        clients: to ask.
        progress: told what is public.

    Raises:
        ConfigError, DataError, CouplingError, ProbeError, ValueError: what cannot be used, before
            anything is charged; `TooFewClients` among them.
        LedgerError: the folder belongs to another run or is in use.
    """
    start = time.monotonic()
    check_federated(config)
    folder = Path(config.output)
    refuse_base_folder(folder, config.model.name)
    public = read_public(config)
    group = Group(config, clients, progress)
    units = group.begin()
    session = runs.open_session(config, folder / LEDGER, units=units)
    with Ledger(folder / LEDGER, session.header) as ledger:
        if (summary := summary_of(folder, ledger)) is not None:
            return summary
        write_config(folder / "config.yaml", config)
        progress.started(session, ledger.charges)
        metrics = Metrics(folder / "metrics.jsonl")
        steps = session.plan.steps
        evaluations = Evaluations(
            session.task, public, metrics, progress, every=config.eval_every, steps=steps
        )
        zero_shot = evaluations.at(0, "zero-shot")
        rounds = Rounds(ledger, registered_run(ledger, where=config.output))
        skipped = _lead(session, rounds, group, evaluations, progress)
        final = evaluations.at(steps, "private")
        metrics.write()
        return write_end(
            session,
            folder,
            zero_shot=zero_shot,
            final=final,
            rows_cut=evaluations.rows_cut,
            also={"clients": len(group.units), "rounds_skipped": skipped} | runs.spent(start),
        )


def _lead(
    session: Session,
    rounds: Rounds,
    group: Group,
    evaluations: Evaluations,
    progress: Progress,
) -> int:
    """All rounds that are left; returns how many were charged and skipped, earlier ones too."""
    ledger = rounds.ledger
    update = session.update()
    update.replay(ledger.releases)

    def collect(charge: int) -> list[list[int]]:
        lines = ledger.path.read_bytes().splitlines(keepends=True)
        return group.shares(rounds, charge, lines)

    while rounds.left:
        group.wait()
        charge, released = rounds.round(collect)
        if released is None:
            progress.fault(f"round {charge}: too few answers; it is charged and skipped.")
        else:
            update.apply(charge, released)
        evaluations.after_step(ledger.charges)
    return ledger.charges - len(ledger.releases)
