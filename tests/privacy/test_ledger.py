"""The ledger: charges are never hidden, and nothing inside can be altered unseen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import BudgetSpent, Ledger, LedgerError

HEADER = {"steps": 4, "plan": {"steps": 4, "directions": 2}, "label": "négatif", "rate": 1e-5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "ledger.jsonl"


def write(path: Path, charges: int, *, release_last: bool = True) -> list[bytes]:
    """So many charges with their releases; returns the file's lines."""
    with Ledger(path, HEADER) as ledger:
        for index in range(charges):
            ledger.charge()
            if release_last or index < charges - 1:
                ledger.release(index, [index, -(10**12) - index])
    return path.read_bytes().splitlines(keepends=True)


def test_charges_and_releases_are_read_back(path: Path):
    write(path, 3, release_last=False)
    record = ledgers.read(path)
    assert record.header == HEADER
    assert record.charges == 3
    assert record.releases == {0: (0, -(10**12)), 1: (1, -(10**12) - 1)}
    assert (path.stat().st_mode & 0o077) == 0


def test_a_resumed_ledger_goes_on_where_it_was(path: Path):
    write(path, 2)
    with Ledger(path, HEADER) as ledger:
        assert ledger.charges == 2
        assert list(ledger.releases) == [0, 1]
        assert ledger.charge() == 2
    assert ledgers.read(path).charges == 3


def test_a_lost_release_is_never_made_up_for(path: Path):
    write(path, 2, release_last=False)
    with Ledger(path, HEADER) as ledger:
        assert ledger.charge() == 2
        with pytest.raises(LedgerError, match="charge 1"):
            ledger.release(1, [5, 5])


def test_a_spent_budget_refuses_the_next_step(path: Path):
    write(path, 4)
    for _ in range(2):
        with Ledger(path, HEADER) as ledger, pytest.raises(BudgetSpent, match="all 4 planned"):
            ledger.charge()
    assert ledgers.read(path).charges == 4


def test_a_release_needs_its_own_charge_and_comes_once(path: Path):
    with Ledger(path, HEADER) as ledger:
        with pytest.raises(LedgerError, match="charge 0"):
            ledger.release(0, [1, 2])
        ledger.charge()
        for index in (-1, 1, 7):
            with pytest.raises(LedgerError, match="cannot be released"):
                ledger.release(index, [1, 2])
        ledger.release(0, [1, 2])
        with pytest.raises(LedgerError, match="again"):
            ledger.release(0, [3, 4])
    assert ledgers.read(path).releases == {0: (1, 2)}


@pytest.mark.parametrize("values", [[1.0, 2], [True, 2], ["1", 2], [None, 2]])
def test_values_must_be_integers(path: Path, values):
    with Ledger(path, HEADER) as ledger:
        ledger.charge()
        with pytest.raises(LedgerError, match="integers only"):
            ledger.release(0, values)
    assert ledgers.read(path).releases == {}


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3]])
def test_a_release_has_one_value_for_each_direction_that_is_accounted(path: Path, values):
    with Ledger(path, HEADER) as ledger:
        ledger.charge()
        with pytest.raises(LedgerError, match="each direction"):
            ledger.release(0, values)


@pytest.mark.parametrize("release_last", [False, True], ids=["charge", "release"])
def test_a_last_line_torn_anywhere_hides_no_charge(path: Path, release_last: bool):
    *whole, last = write(path, 3, release_last=release_last)
    for length in range(1, len(last)):  # the full length without the line's end is torn too
        path.write_bytes(b"".join(whole) + last[:length])
        seen = ledgers.read(path).charges
        assert seen >= 3, length
        assert release_last or seen == 3, length
        with Ledger(path, HEADER) as ledger:
            assert ledger.charges == seen
            assert sorted(ledger.releases) == [0, 1]
            assert ledgers.read(path).charges == seen  # the repaired file verifies
            remaining = list(range(seen, 4))
            assert [ledger.charge() for _ in remaining] == remaining
            with pytest.raises(BudgetSpent):
                ledger.charge()
        assert ledgers.read(path).charges == 4


def test_a_torn_release_is_known_for_one_from_its_third_byte(path: Path):
    *whole, last = write(path, 3)
    path.write_bytes(b"".join(whole) + last[:3])
    assert ledgers.read(path).charges == 3


def test_a_release_torn_at_the_end_of_the_budget_charges_nothing_more(path: Path):
    *whole, last = write(path, 4)
    for length in range(1, len(last)):
        path.write_bytes(b"".join(whole) + last[:length])
        with Ledger(path, HEADER) as ledger:
            assert ledger.charges == 4
            assert sorted(ledger.releases) == [0, 1, 2]


def test_a_tail_of_zero_bytes_counts_as_a_charge(path: Path):
    # What some file systems leave of a line when the power fails.
    path.write_bytes(b"".join(write(path, 2)) + bytes(60))
    assert ledgers.read(path).charges == 3


def test_a_header_torn_anywhere_begins_anew(path: Path):
    (header,) = write(path, 0)
    for length in range(len(header)):
        path.write_bytes(header[:length])
        with pytest.raises(LedgerError, match="header"):
            ledgers.read(path)
        with Ledger(path, HEADER) as ledger:
            assert ledger.charges == 0
        assert path.read_bytes() == header


@pytest.mark.parametrize(
    "change", [{"steps": 5}, {"rate": 2e-5}, {"extra": 1}, {"plan": {"steps": 4, "directions": 3}}]
)
def test_another_runs_header_is_refused(path: Path, change):
    before = b"".join(write(path, 1))
    with pytest.raises(LedgerError, match=f"different run.*{next(iter(change))}"):
        Ledger(path, HEADER | change)
    assert path.read_bytes() == before


HOLD = """
import json, sys
from hushtune.privacy.ledger import Ledger
with Ledger(sys.argv[1], json.loads(sys.argv[2])) as ledger:
    ledger.charge()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_while_the_first_holds_the_lock(path: Path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), json.dumps(HEADER)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LedgerError, match="another process"):
            Ledger(path, HEADER)
        assert ledgers.read(path).charges == 1  # looking is allowed
        holder.kill()  # a crash frees the lock and hides no charge
    with Ledger(path, HEADER) as ledger:
        assert ledger.charge() == 1


def test_the_same_process_cannot_open_a_ledger_twice(path: Path):
    with Ledger(path, HEADER), pytest.raises(LedgerError, match="another process"):
        Ledger(path, HEADER)


@pytest.mark.parametrize("failing", ["charge", "release"])
def test_a_failing_disk_stops_the_run_for_good(path: Path, monkeypatch, failing: str):
    def fail(_: int) -> None:
        raise OSError("the disk failed")

    ledger = Ledger(path, HEADER)
    ledger.charge()
    ledger.release(0, [1, 2])
    if failing == "release":
        ledger.charge()
    true_charges = ledger.charges
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="the disk failed"):
            ledger.charge() if failing == "charge" else ledger.release(1, [3, 4])
    # A second fsync may succeed although the data is lost, so there is no second try.
    with pytest.raises(OSError, match="descriptor"):
        ledger.charge()
    with Ledger(path, HEADER) as again:
        assert again.charges >= true_charges


def test_a_full_disk_stops_the_run_and_leaves_a_torn_line(path: Path, monkeypatch):
    write_all = os.write
    with Ledger(path, HEADER) as ledger, monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, line: write_all(file, line[:9]))
        with pytest.raises(OSError, match="completely"):
            ledger.charge()
    assert ledgers.read(path).charges == 1
    with Ledger(path, HEADER) as ledger:
        assert ledger.charge() == 1


def test_each_line_and_each_new_folder_is_made_durable(path: Path, monkeypatch):
    synced: list[str] = []
    fsync = os.fsync

    def note(file: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    monkeypatch.setattr(os, "fsync", note)
    with Ledger(path, HEADER) as ledger:
        folders = {str(path.parent), str(path.parent.parent), str(path.parent.parent.parent)}
        assert folders <= set(synced)
        synced.clear()
        ledger.charge()
        assert synced == [str(path)]
        ledger.release(0, [1, 2])
        assert synced == [str(path)] * 2
