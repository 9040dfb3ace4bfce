"""A charge is on disk before anybody is sampled; where that fails, the run stops.

And one process at a time.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_ledger import HEADER, write
from test_steps import UNITS, make_header, ones

from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger, LedgerError
from hushtune.privacy.sampling import PoissonSampler
from hushtune.privacy.steps import PrivateSteps


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "ledger.jsonl"


@pytest.fixture
def events(monkeypatch) -> list[str]:
    """What is written and what is synced, in this order; samples too."""
    seen: list[str] = []

    def note(name: str, function: Callable) -> Callable:
        def noted(file: int, *rest):
            result = function(file, *rest)
            seen.append(f"{name} {os.readlink(f'/proc/self/fd/{file}')}")
            return result

        return noted

    def sample(self: PoissonSampler, original: Callable = PoissonSampler.sample):
        seen.append("sample")
        return original(self)

    monkeypatch.setattr(os, "write", note("write", os.write))
    monkeypatch.setattr(os, "fsync", note("sync", os.fsync))
    monkeypatch.setattr(PoissonSampler, "sample", sample)
    return seen


def test_a_charge_is_synced_before_the_sample_and_a_release_before_it_is_returned(path, events):
    with Ledger(path, make_header()) as ledger:
        steps = PrivateSteps(ledger, units=UNITS)
        events.clear()
        steps.step(ones)
    durable = [f"write {path}", f"sync {path}"]
    assert events == [*durable, "sample", *durable]


def test_every_folder_is_synced_up_to_the_first_old_one_before_the_header(path, events, tmp_path):
    Ledger(path, HEADER).close()
    header = [f"write {path}", f"sync {path}"]
    assert events[-2:] == header
    folders = [path.parent, path.parent.parent, tmp_path]
    assert events[:3] == [f"sync {folder}" for folder in folders]
    assert not any(event in events[:-2] for event in header)


def test_folders_that_nobody_here_can_have_made_are_left_alone(path, events, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, _: Path(folder) != tmp_path)
    Ledger(path, HEADER).close()
    header = [f"write {path}", f"sync {path}"]
    assert events == [f"sync {path.parent}", f"sync {path.parent.parent}", *header]


@contextmanager
def failing_sync(monkeypatch, of: Path) -> Iterator[None]:
    fsync = os.fsync

    def fail(file: int) -> None:
        if os.readlink(f"/proc/self/fd/{file}") == str(of):
            raise OSError(5, "Input/output error")
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        yield


def test_where_a_folder_cannot_be_synced_there_is_no_ledger_yet(path, monkeypatch):
    for folder in list(path.parents)[:3]:
        for _ in range(2):  # the second time the folders are no new ones
            with failing_sync(monkeypatch, folder), pytest.raises(OSError, match="Input/output"):
                Ledger(path, HEADER)
            with pytest.raises(LedgerError, match="nothing was charged"):
                ledgers.read(path)
    with Ledger(path, HEADER) as ledger:
        assert ledger.charge() == 0


def test_folders_that_an_interrupted_beginning_left_are_synced_by_the_next(path, events, tmp_path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"header":')
    Ledger(path, HEADER).close()
    assert {f"sync {folder}" for folder in (path.parent, path.parent.parent, tmp_path)} < {*events}


@pytest.mark.parametrize("failing", ["header", "charge", "release"])
def test_a_failing_disk_stops_the_run_for_good(path: Path, monkeypatch, failing: str):
    if failing == "header":
        with failing_sync(monkeypatch, path), pytest.raises(OSError, match="Input/output"):
            Ledger(path, HEADER)
        return
    ledger = Ledger(path, HEADER)
    ledger.charge()
    ledger.release(0, [1, 2])
    if failing == "release":
        ledger.charge()
    true_charges = ledger.charges
    with failing_sync(monkeypatch, path), pytest.raises(OSError, match="Input/output") as refusal:
        ledger.charge() if failing == "charge" else ledger.release(1, [3, 4])
    assert refusal.value.filename == str(path)
    # A second fsync may succeed although the data is lost, so there is no second try.
    with pytest.raises(OSError, match="descriptor"):
        ledger.charge()
    with Ledger(path, HEADER) as again:
        assert again.charges >= true_charges


def test_a_sample_is_not_drawn_where_the_charge_could_not_be_synced(path, events, monkeypatch):
    with Ledger(path, make_header()) as ledger:
        steps = PrivateSteps(ledger, units=UNITS)
        with failing_sync(monkeypatch, path), pytest.raises(OSError, match="Input/output"):
            steps.step(ones)
        with pytest.raises(OSError, match="descriptor"):
            steps.step(ones)
    assert "sample" not in events


FULL = r"could not be written completely|File too large"


@contextmanager
def room_for(path: Path, more: int) -> Iterator[None]:
    """The system itself writes so many more bytes and no others, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["charge", "release"])
@pytest.mark.parametrize("room", [0, 1, 2, 3, 40, -1])
def test_a_full_disk_stops_the_run_and_leaves_a_line_that_is_made_good(path, kind, room):
    *whole, last = write(path, 2, release_last=kind == "release")
    room = room if room >= 0 else len(last) - 1
    path.write_bytes(b"".join(whole))
    with Ledger(path, HEADER) as ledger, room_for(path, room):
        with pytest.raises(OSError, match=FULL):
            ledger.charge() if kind == "charge" else ledger.release(1, [1, -(10**12) - 1])
        with pytest.raises(OSError, match="descriptor"):
            ledger.charge()
    assert path.read_bytes() == b"".join(whole) + last[:room]

    seen = ledgers.read(path).charges
    # A charge of which nothing was written was no charge: nobody was sampled for it.
    assert seen >= (1 if kind == "charge" and not room else 2)
    with Ledger(path, HEADER) as ledger:
        assert ledger.charge() == seen


def test_a_full_disk_where_a_torn_charge_is_made_good_changes_nothing(path):
    *whole, last = write(path, 2, release_last=False)
    torn = b"".join(whole) + last[:20]
    path.write_bytes(torn)
    for room in (0, 5):
        with room_for(path, room), pytest.raises(OSError, match=FULL):
            Ledger(path, HEADER)
        assert ledgers.read(path).charges == 2
    with Ledger(path, HEADER) as ledger:
        assert ledger.charge() == 2


HOLD = """
import json, sys
from hushtune.privacy.ledger import Ledger, LedgerError
print("ready", flush=True)
sys.stdin.readline()
try:
    with Ledger(sys.argv[1], json.loads(sys.argv[2])) as ledger:
        ledger.charge()
        print("held", flush=True)
        sys.stdin.read()
except LedgerError as refusal:
    print(refusal, flush=True)
"""


class Holder:
    """A process that opens a ledger when told to, charges a step and stays."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path), json.dumps(HEADER)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def open(self) -> None:
        self.process.stdin.write("open\n")
        self.process.stdin.flush()

    def said(self) -> str:
        return self.process.stdout.readline()


def test_of_two_processes_one_trains_and_the_other_is_refused(path: Path):
    holders = [Holder(path), Holder(path)]
    with holders[0].process, holders[1].process:
        for holder in holders:  # both at once, in a folder that is not there yet
            holder.open()
        said = [holder.said() for holder in holders]
        refusal = f"{path}: another process is training in this run folder.\n"
        assert sorted(said) == sorted([refusal, "held\n"])
        with pytest.raises(LedgerError, match="another process"):
            Ledger(path, HEADER)
        assert ledgers.read(path).charges == 1  # looking is allowed
        holders[said.index("held\n")].process.kill()
    with Ledger(path, HEADER) as ledger:  # a crash frees the lock and hides no charge
        assert ledger.charge() == 1


def test_the_same_process_cannot_open_a_ledger_twice(path: Path):
    with Ledger(path, HEADER), pytest.raises(LedgerError, match="another process"):
        Ledger(path, HEADER)


def test_no_program_that_is_started_meanwhile_inherits_the_lock(path: Path):
    with Ledger(path, HEADER):
        other = subprocess.Popen(["sleep", "60"], close_fds=False)
    with other:
        Ledger(path, HEADER).close()
        other.kill()
