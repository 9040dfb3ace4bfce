"""A process that has everything loaded and forks children that train, each killed at its moment.

    python warm_process.py config.json

Standard input has one request a line, `{"folder": …, "seconds": …, "load": …, "split": …}`; the
answer is whether the child was killed before it was done (without `seconds` it never is). A child
does in `folder` what `hushtune train` does, and notes in `folder`/seen the SHA-256 of the moving
parameters at each sample and after each update. Unless it is to `load` the model, the session is
the one that is here already; with `split`, ledger lines are written in pieces.

Forked, because importing torch takes longer than the run; from a process of its own with one
thread, because a fork keeps no other.
"""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hushtune import run as runs
from hushtune import session as sessions
from hushtune.config import Config, from_values
from hushtune.models.load import hash_tensors
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.sampling import PoissonSampler
from hushtune.privacy.steps import Steps
from hushtune.session import Session
from hushtune.trainer import train
from hushtune.zo.update import Update

#: The system's own write, whatever the ledger is made to use.
write_whole = os.write


class Silent:
    """Progress that shows nothing."""

    def started(self, session: Session, charges: int) -> None: ...

    def stepped(self, charges: int) -> None: ...

    def evaluated(self, name: str, accuracy: float) -> None: ...


def main(config: Config) -> None:
    """Answer requests until there are no more."""
    torch.set_num_threads(1)
    session = sessions.begin(config, units=60)
    with tempfile.TemporaryDirectory() as folder:  # so that children compile nothing
        os.chdir(folder)
        loaded = runs.open_session
        use_session(copy.deepcopy(session))
        runs.train(config, Silent())
        take_back_the_last_step(Path(folder))
        runs.open_session = loaded
        runs.train(config, Silent())
    print("ready", flush=True)
    for line in sys.stdin:
        killed = fork_and_kill(config, session, **json.loads(line))
        print(json.dumps({"killed": killed}), flush=True)


def take_back_the_last_step(folder: Path) -> None:
    """Leave of a finished run one that has a step to go."""
    (folder / "summary.json").unlink()
    ledger = folder / runs.LEDGER
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-2]))


def use_session(session: Session) -> None:
    runs.open_session = lambda config, ledger, record, *, units: session


def fork_and_kill(
    config: Config, session: Session, *, folder: str, seconds: float | None, load: bool, **how: Any
) -> bool:
    """Whether a child was killed before it was done."""
    seen = os.open(Path(folder, "seen"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(seen, b"begin\n")
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            if not load:
                use_session(session)
            train_watched(config, seen, **how)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(seen)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("A child failed; see above.")
    return os.WIFSIGNALED(status)


def train_watched(config: Config, seen: int, *, split: bool, fault: str) -> None:
    if fault:
        FAULTS[fault].plant()
    if split:
        os.write = write_in_pieces

    def watch(session: Session, data: Any, steps: Steps, **rest: Any) -> None:
        def note(event: str) -> None:
            state = hash_tensors(session.parameters.items())
            write_whole(seen, f"{event} {state}\n".encode())

        # A sample belongs to the last charge there is.
        note_before(PoissonSampler, "sample", lambda: note(f"sample {steps.ledger.charges - 1}"))
        note_after(Update, "apply", lambda charge, _: note(f"apply {charge}"))
        train(session, data, steps, **rest)

    runs.train_steps = watch
    runs.train(config, Silent())


def note_before(owner: type, name: str, note: Callable[[], None]) -> None:
    function = getattr(owner, name)
    setattr(owner, name, lambda self: (note(), function(self))[1])


def note_after(owner: type, name: str, note: Callable[..., None]) -> None:
    function = getattr(owner, name)
    setattr(owner, name, lambda self, *rest: (function(self, *rest), note(*rest))[0])


def write_in_pieces(file: int, data: bytes) -> int:
    """A few bytes, a pause, the next: a kill often falls in between."""
    place = 0
    while place < len(data):
        time.sleep(1e-4)
        place += write_whole(file, data[place : place + random.randint(1, 9)])
    return place


@dataclass
class Fault:
    """Something that is wrong on purpose.

    Attributes:
        plant: makes the child do it.
        because: what the check has to complain of.
    """

    plant: Callable[[], None]
    because: str


class ForgetsLostSteps(Ledger):
    """Takes a charge without a release for one that never was."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            if lines and lines[-1].startswith(b'{"charge"'):
                path.write_bytes(b"".join(lines[:-1]))
        super().__init__(path, header)


class RedrawsLostReleases(Ledger):
    """Samples again for a charge whose release was lost."""

    def charge(self) -> int:
        lost = self.charges - 1
        return lost if lost >= 0 and lost not in self.releases else super().charge()


class ReleasesLate(Ledger):
    """Writes a release only with the next charge."""

    _late: tuple[int, Any] | None = None

    def charge(self) -> int:
        if self._late:
            super().release(*self._late)
        return super().charge()

    def release(self, index: int, values: Any) -> None:
        self._late = index, values


class GoesOnFromTheLastRelease(Ledger):
    """Hands out only the last release when a run goes on."""

    @property
    def releases(self) -> dict[int, tuple[int, ...]]:
        return dict(list(super().releases.items())[-1:])


def sample_before_the_charge() -> None:
    def step(self: Steps, slopes: Any) -> tuple[int, tuple[int, ...]]:
        units = self._sampler.sample()
        charge = self.ledger.charge()
        released = self._boundary.release(*slopes(units, charge))
        self.ledger.release(charge, released)
        return charge, released

    Steps.step = step


def use(ledger: type[Ledger]) -> Callable[[], None]:
    return lambda: setattr(runs, "Ledger", ledger)


FAULTS = {
    "forgets lost steps": Fault(use(ForgetsLostSteps), "is gone|two samples"),
    "redraws lost releases": Fault(use(RedrawsLostReleases), "two samples"),
    "releases late": Fault(use(ReleasesLate), "not the ledger's releases"),
    "goes on from the last release": Fault(use(GoesOnFromTheLastRelease), "not the ledger's"),
    "samples before the charge": Fault(sample_before_the_charge, "without a charge"),
}

if __name__ == "__main__":
    main(from_values(json.loads(Path(sys.argv[1]).read_text())))
