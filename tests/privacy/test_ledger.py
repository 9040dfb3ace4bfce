"""The ledger: what is charged and released, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from small_ledger import HEADER, write

from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import BudgetSpent, Ledger, LedgerError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "ledger.jsonl"


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


@pytest.mark.parametrize(
    "change", [{"steps": 5}, {"rate": 2e-5}, {"extra": 1}, {"plan": {"steps": 4, "directions": 3}}]
)
def test_another_runs_header_is_refused(path: Path, change):
    before = b"".join(write(path, 1))
    with pytest.raises(LedgerError, match=f"different run.*{next(iter(change))}"):
        Ledger(path, HEADER | change)
    assert path.read_bytes() == before


def test_no_line_says_when_it_was_written(path: Path, monkeypatch):
    lines = write(path, 3)
    path.unlink()
    monkeypatch.setattr(time, "time", lambda: 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    assert write(path, 3) == lines
    for line in lines[1:]:
        assert json.loads(line).keys() <= {"charge", "release", "values", "hash"}
