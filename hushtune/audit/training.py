"""One training run on canaries alone, along the path that every run takes.

The plan is the audited run's, to the bit: a ledger is begun with the audited run's own header, in
which only the names of files and the (public) number of units differ, and `runs.train` goes on
with it as it goes on with any run. Nothing is calibrated or probed again. The private training file
is never opened; that nobody else is in the data is the worst case for privacy, since everything
that is not a canary would only hide them.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from hushtune import run as runs
from hushtune.audit.canaries import Canaries
from hushtune.config import Config
from hushtune.opening import RunSession
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger, Record
from hushtune.session import Session


class AuditError(ValueError):
    """What cannot be audited; one line that says why."""


class _Enough(Exception):
    """As many steps as are audited have been taken."""


class _StopAfter:
    """Progress that shows nothing and ends the run early."""

    def __init__(self, steps: int, planned: int) -> None:
        self._steps = steps if steps < planned else None

    def started(self, session: RunSession, charges: int) -> None: ...

    def stepped(self, charges: int) -> None:
        if charges == self._steps:
            raise _Enough

    def evaluated(self, name: str, metrics: Mapping[str, float]) -> None: ...


@dataclasses.dataclass(frozen=True)
class CanaryRun:
    """What a run on canaries published.

    Attributes:
        record: its ledger.
        moved_sha256: hash of the final parameters; None where the run was ended early.
    """

    record: Record
    moved_sha256: str | None


def train_on_canaries(
    session: Session, canaries: Canaries, coins: np.ndarray, *, steps: int
) -> CanaryRun:
    """Train as the audited run did, on the canaries that the coins put in.

    Args:
        session: the audited run, in its state before the first step; stays as it is.
        canaries: all canaries.
        coins: (canaries,) bool.
        steps: how many of the planned steps to take.

    Raises:
        AuditError: if what ran was not the audited plan.
    """
    with _temporary_folder() as folder:
        data = folder / "canaries.jsonl"
        canaries.write(data, coins, session.config)
        config = _configuration(session, data, folder / "run")
        header = session.header | {"config": config.to_json()}
        path = folder / "run" / runs.LEDGER
        with Ledger(path, header):
            pass
        progress = _StopAfter(steps, session.plan.steps)
        summary: dict[str, Any] = {}
        with suppress(_Enough):
            summary = runs.train(config, progress, features=session.features)
        run = CanaryRun(ledgers.read(path), summary.get("moved_sha256"))
    _require_same(session.header, run.record, steps)
    return run


def _configuration(session: Session, data: Path, output: Path) -> Config:
    """The audited run's, with other files, and its number of units given rather than counted."""
    config = session.config
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data, train=str(data), eval=None, population=session.plan.population
        ),
        # Canaries are nobody's data: what is spent on them is not spent on the registry's.
        privacy=dataclasses.replace(config.privacy, registry=None),
        output=str(output),
    )


def _require_same(header: dict[str, Any], record: Record, steps: int) -> None:
    """What ran must have been accounted for as the audited run is."""
    different = [key for key in header if key != "config" and header[key] != record.header.get(key)]
    if different:
        raise AuditError(f"the canaries' run has another {', '.join(different)} than the run.")
    if record.charges != steps or len(record.releases) != steps:
        raise AuditError(
            f"the canaries' run charged {record.charges} steps and released "
            f"{len(record.releases)}; expected {steps}."
        )


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A private folder that goes away however the audit ends."""
    with tempfile.TemporaryDirectory(prefix="hushtune-audit-") as folder:
        yield Path(folder)
