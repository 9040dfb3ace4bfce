"""A last line that a crash cut short hides no charge, wherever it was cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_ledger import HEADER, write

from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import BudgetSpent, Ledger, LedgerError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "ledger.jsonl"


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
    for length in (*range(20), *range(20, len(header), 9), len(header) - 1):
        path.write_bytes(header[:length])
        with pytest.raises(LedgerError, match="header"):
            ledgers.read(path)
        with Ledger(path, HEADER) as ledger:
            assert ledger.charges == 0
        assert path.read_bytes() == header


class PowerCut(BaseException):
    """Nothing after it runs."""


@pytest.mark.parametrize("release_last", [False, True], ids=["charge", "release"])
def test_a_recovery_that_is_cut_short_itself_hides_no_charge(
    path: Path, monkeypatch, release_last: bool
):
    """Before the first byte that it writes, and after every fourth."""
    *whole, last = write(path, 3, release_last=release_last)
    write_all = os.write
    for length in (1, 2, 3, 9, 11, len(last) // 2, len(last) - 1):
        torn = b"".join(whole) + last[:length]
        path.write_bytes(torn)
        before = ledgers.read(path)
        with Ledger(path, HEADER):
            repaired = path.read_bytes()
        for more in range(0, len(repaired) - len(torn), 4):
            path.write_bytes(torn)

            def cut(file: int, data: bytes, more: int = more) -> int:
                write_all(file, data[:more])
                raise PowerCut

            with monkeypatch.context() as patch:
                patch.setattr(os, "write", cut)
                with pytest.raises(PowerCut):
                    Ledger(path, HEADER)
            assert ledgers.read(path).charges == before.charges, (length, more)
            with Ledger(path, HEADER) as ledger:
                assert (ledger.charges, ledger.releases) == (before.charges, before.releases)
