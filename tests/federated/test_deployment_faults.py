"""Processes of a deployment are killed in the middle of a round, and the same command goes on.

`kill -9` and nothing gentler: no process has a chance to write, to answer or to say goodbye.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import write_reviews
from deployment import Deployment, deployed, write_node_key
from local import configuration

from hushtune.federated.apps import write_app
from hushtune.guarantee import describe_guarantee
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.record import Record, begun
from hushtune.run import replay

pytest.importorskip("flwr")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OWNERS = {"owner0": 30, "owner1": 40}


class Site:
    """A server's machine and two owners' machines, all of them here.

    Args:
        deployment: its processes.
        folder: for all that they write.
    """

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment = deployment
        self.folder = folder
        self.ledger = folder / "run" / "ledger.jsonl"
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def join(self, name: str) -> None:
        """Start an owner's SuperNode."""
        said = f'data="{self.folder / name}.jsonl" folder="{self.folder / name}-copy"'
        self.nodes[name] = self.deployment.supernode(name, f'{said} epsilon=4.0 trust="server"')

    def begin(self) -> int:
        """Start the run; the same command goes on with it."""
        return self.deployment.run(self.folder / "app")

    def until(self, holds: Callable[[], object], *, seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.deployment.said("superlink")[-5000:]
            time.sleep(0.05)

    def finished(self, run: int) -> bool:
        return self.deployment.status(run).startswith("finished")

    def copy_of(self, name: str) -> Path:
        return self.folder / f"{name}-copy" / "ledger.jsonl"

    def asked(self, name: str) -> int:
        """How many rounds an owner's node has been asked for, by its own copy of the ledger."""
        record = begun(self.copy_of(name))
        return 0 if record is None else record.charges

    def is_back(self, name: str, *, rounds: int) -> bool:
        """Whether a node that was killed has been asked for so many rounds.

        As long as the SuperLink thinks that it is alive, a second node with its key is turned away
        and ends; then it is started again.
        """
        if self.nodes[name].poll() is not None:
            self.join(name)
        return self.asked(name) >= rounds

    @contextlib.contextmanager
    def in_round(self, number: int) -> Iterator[None]:
        """The block happens while owner0 computes its share of a round that cannot end.

        owner1's node is held until after the block, so that it sends nothing.
        """
        self.until(lambda: (record := begun(self.ledger)) and number - 1 in record.releases)
        held = self.nodes["owner1"]
        held.send_signal(signal.SIGSTOP)
        try:
            self.until(lambda: self.asked("owner0") > number)
            yield
        finally:
            held.send_signal(signal.SIGCONT)


@pytest.fixture
def site(encoder_folder, tmp_path: Path):
    """Makes a deployment with its owners' keys and data, and nothing started but the SuperLink."""
    with contextlib.ExitStack() as stack:

        def make(*, steps: int, timeout: float) -> Site:
            public = write_reviews(tmp_path / "public.jsonl", 20)
            config = configuration(encoder_folder, public, tmp_path, clients=2, timeout=timeout)
            method = dataclasses.replace(config.method, steps=steps)
            write_app(dataclasses.replace(config, method=method), tmp_path / "app")
            for name, rows in OWNERS.items():
                write_reviews(tmp_path / f"{name}.jsonl", rows)
                write_node_key(tmp_path, name)
            return Site(stack.enter_context(deployed(tmp_path)), tmp_path)

        yield make


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and wait until all that it had started has noticed."""
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left


def answers_in(kept: bytes) -> list[bytes]:
    """Integers of clients, as they were sent, that can be read back from a database's bytes."""
    from flwr.app import ConfigRecord

    found: list[bytes] = []
    # The form in which Flower stores a record: its name, how long it is, a zero, the record.
    for match in re.finditer(rb"ConfigRecord \d* (\d+)\0", kept):
        with contextlib.suppress(Exception):  # bytes of something else that was written over it
            record = ConfigRecord.inflate(kept[match.start() : match.end() + int(match[1])])
            found += [record["values"]] if "values" in record else []
    return found


def assert_ended_well(site: Site, *, steps: int, lost: set[int]) -> None:
    """All rounds were charged, `lost` ones released nothing, and all copies are the ledger's."""
    record: Record = ledgers.read(site.ledger)
    assert record.charges == steps
    assert set(record.releases) == set(range(steps)) - lost
    guarantee = describe_guarantee(record)
    assert guarantee["steps_charged"] == steps
    assert guarantee["population"] == sum(OWNERS.values())
    summary = json.loads((site.folder / "run" / "summary.json").read_text())
    assert summary["rounds_skipped"] == len(lost)
    assert summary["epsilon"] == guarantee["epsilon"] <= 4.0
    lines = site.ledger.read_bytes().splitlines()
    for name in OWNERS:
        copied = site.copy_of(name).read_bytes().splitlines()
        # Nobody is told the last release, since no charge follows it.
        assert copied == lines[:-1]
    replay(site.ledger, model=None, out=site.folder / "again")
    one, other = (
        (site.folder / folder / "model" / "label_vectors.safetensors").read_bytes()
        for folder in ("run", "again")
    )
    assert one == other


@pytest.mark.parametrize("client_too", [False, True])
def test_the_next_run_goes_on_after_a_killed_server(site, client_too):
    here = site(steps=3, timeout=120.0)
    superlink = here.deployment.superlink()
    for name in OWNERS:
        here.deployment.register(name)
        here.join(name)
    here.begin()
    with here.in_round(1):
        here.deployment.child(superlink, "flwr-serverapp").kill()
        if client_too:
            kill(here.nodes["owner0"])
    record = ledgers.read(here.ledger)
    assert record.charges == 2
    assert set(record.releases) == {0}
    run = here.begin()
    if client_too:
        # The run asks who is there while the dead node is still thought alive, and waits for it.
        here.until(lambda: here.is_back("owner0", rounds=3))
    here.until(lambda: here.finished(run))
    assert here.deployment.status(run) == "finished:completed"
    assert_ended_well(here, steps=3, lost={1})


@pytest.mark.parametrize("database", [None, "superlink.db"])
def test_the_next_run_goes_on_after_a_killed_superlink(site, database):
    here = site(steps=3, timeout=120.0)
    superlink = here.deployment.superlink(database=database)
    for name in OWNERS:
        here.deployment.register(name)
        here.join(name)
    here.begin()
    with here.in_round(1):
        kill(superlink)
    assert set(ledgers.read(here.ledger).releases) == {0}
    here.deployment.superlink(database=database)
    if database is None:
        # The keys are forgotten; a node that is not known any more ends, as if it were interrupted.
        for name, node in here.nodes.items():
            assert node.wait(timeout=120) in (0, -signal.SIGINT)
            here.deployment.register(name)
            here.join(name)
    run = here.begin()
    here.until(lambda: here.finished(run))
    assert here.deployment.status(run) == "finished:completed"
    assert_ended_well(here, steps=3, lost={1})
    if database is not None:
        assert all(node.poll() is None for node in here.nodes.values())
        # docs/federated.md warns of this: messages were deleted, and their numbers are there.
        files = (here.folder / name for name in (database, f"{database}-wal"))
        assert answers_in(b"".join(file.read_bytes() for file in files if file.exists()))


def test_a_run_goes_on_without_a_killed_client_and_with_it_when_it_is_back(site):
    here = site(steps=6, timeout=120.0)
    here.deployment.superlink()
    for name in OWNERS:
        here.deployment.register(name)
        here.join(name)
    run = here.begin()
    with here.in_round(1):
        kill(here.nodes["owner0"])
    here.until(lambda: here.is_back("owner0", rounds=3))
    here.until(lambda: here.finished(run))
    assert here.deployment.status(run) == "finished:completed"
    assert_ended_well(here, steps=6, lost=set())
