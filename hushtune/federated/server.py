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
from hushtune.ending import LEDGER
from hushtune.evaluation import read_public
from hushtune.federated.agreement import run_of
from hushtune.federated.group import Group
from hushtune.federated.messages import Clients
from hushtune.models.save import refuse_base_folder
from hushtune.opening import RunSession
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.lines import LedgerLines
from hushtune.privacy.registry import RegisteredRun
from hushtune.privacy.rounds import Rounds
from hushtune.trainer import AfterStep


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
        TooFewClients, InVain: before a round; what was charged stays charged.
        LedgerError: the folder belongs to another run or is in use.
    """
    start = time.monotonic()
    check_federated(config)
    folder = Path(config.output)
    refuse_base_folder(folder, config.model.name)
    public = read_public(config)
    record = ledgers.begun(folder / LEDGER)
    group = Group(config, clients, progress, "" if record is None else run_of(record.header))
    session = runs.open_session(config, folder / LEDGER, record, units=_gather(group, record))

    def take(
        ledger: Ledger, registered: RegisteredRun | None, after_step: AfterStep
    ) -> dict[str, Any]:
        _lead(session, Rounds(ledger, registered), group, after_step, progress)
        skipped = ledger.charges - len(ledger.releases)
        return {"clients": config.federated.clients, "rounds_skipped": skipped}

    return runs.carry_out(config, session, public, progress, take, start=start)


def _gather(group: Group, record: ledgers.Record | None) -> int:
    """Wait for the clients that the run needs now; returns the number of units in all."""
    if record is None:
        return group.begin()
    complete = record.charges >= record.header["steps"]
    # A client may have left for good; rounds go on without it, and so does the run.
    units = None if complete else group.rejoin()
    return record.header["plan"]["population"] if units is None else units


def _lead(
    session: RunSession,
    rounds: Rounds,
    group: Group,
    after_step: AfterStep,
    progress: Progress,
) -> None:
    """All rounds that are left."""
    ledger = rounds.ledger
    update = session.update()
    update.replay(ledger.releases)
    group.run = run_of(ledger.header)

    lines = LedgerLines(ledger.path)

    def collect(charge: int) -> list[list[int]]:
        lines.look()
        return group.shares(rounds, charge, lines)

    while rounds.left:
        group.wait()
        charge, released = rounds.round(collect)
        if released is None:
            progress.fault(f"round {charge}: too few answers; it is charged and skipped.")
        else:
            update.apply(charge, released)
        after_step(ledger.charges)
