"""A client's copy of a server's ledger: each charge is answered once, and nothing is told twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hushtune.privacy import ledger as ledgers
from hushtune.privacy import ledger_copy
from hushtune.privacy.ledger import Ledger, LedgerError
from hushtune.privacy.ledger_copy import Behind, LedgerCopy

HEADER = {"steps": 3, "private": True}


@pytest.fixture
def told(tmp_path: Path):
    """Lines of a server's ledger with two charges, of which the first is released."""

    def make(value: int = 5) -> list[bytes]:
        path = tmp_path / f"server{value}.jsonl"
        with Ledger(path, HEADER) as ledger:
            ledger.charge()
            ledger.release(0, [value])
            ledger.charge()
        return path.read_bytes().splitlines(keepends=True)

    return make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client" / "ledger.jsonl"


def follow(path: Path, first: int, lines: list[bytes]) -> int:
    with LedgerCopy(path) as copy:
        return copy.follow(first, b"".join(lines))


def test_it_grows_line_by_line_and_is_the_servers(told, path):
    lines = told()
    assert follow(path, 0, lines[:2]) == 0
    assert follow(path, 2, lines[2:]) == 1
    assert path.read_bytes() == b"".join(lines)
    assert ledgers.read(path).releases == {0: (5,)}


def test_lines_that_are_known_may_be_told_again(told, path):
    lines = told()
    follow(path, 0, lines[:2])
    assert follow(path, 0, lines) == 1


def test_a_charge_is_answered_once(told, path):
    lines = told()
    follow(path, 0, lines)
    for first in (0, 2, 3):
        with pytest.raises(LedgerError, match="asked for before"):
            follow(path, first, lines[first:])


def test_lines_that_are_missing_are_asked_for(told, path):
    lines = told()
    follow(path, 0, lines[:2])
    with pytest.raises(Behind) as behind:
        follow(path, 3, lines[3:])
    assert behind.value.known == 2


def test_a_ledger_that_says_otherwise_is_refused_even_where_it_goes_on(told, path):
    one, other = told(5), told(6)
    follow(path, 0, one)
    with Ledger(path.parent / "other.jsonl", HEADER) as ledger:
        ledger.charge()
        ledger.release(0, [6])
        ledger.charge()
        ledger.release(1, [7])
        ledger.charge()
    longer = (path.parent / "other.jsonl").read_bytes().splitlines(keepends=True)
    with pytest.raises(LedgerError, match="says otherwise than it did before"):
        follow(path, 0, longer)
    with pytest.raises(LedgerError, match="says otherwise than it did before"):
        follow(path, 0, other)
    assert path.read_bytes() == b"".join(one)


def test_lines_that_do_not_follow_are_refused(told, path):
    one, other = told(5), told(6)
    follow(path, 0, one[:2])
    with pytest.raises(LedgerError, match="line 4 of the ledger"):
        follow(path, 2, [one[2], other[3]])
    assert path.read_bytes() == b"".join(one[:2])


def test_a_last_line_that_charges_nothing_is_no_question(told, path):
    with pytest.raises(LedgerError, match="charges no round"):
        follow(path, 0, told()[:3])


def test_a_line_that_was_cut_short_was_answered_by_nobody(told, path):
    lines = told()
    follow(path, 0, lines[:2])
    with path.open("ab") as file:
        file.write(lines[2] + lines[3][:-5])
    assert follow(path, 2, lines[2:]) == 1
    assert path.read_bytes() == b"".join(lines)


def test_one_process_at_a_time_answers(told, path):
    with LedgerCopy(path), pytest.raises(LedgerError, match="another process answers"):
        LedgerCopy(path)


def test_a_process_goes_on_with_what_it_remembers(told, path):
    lines = told()
    with LedgerCopy(path) as copy:
        assert copy.follow(0, b"".join(lines[:2])) == 0
        kept = copy.keep()
    with LedgerCopy(path, kept) as copy:
        assert copy.record is kept.record
        assert copy.follow(2, b"".join(lines[2:])) == 1
        assert copy.record.releases == {0: (5,)}
        assert copy.held_from == 0
        kept = copy.keep()
        assert kept.record.releases == {}  # of charges before the last one nothing is remembered
    with LedgerCopy(path, kept) as copy:
        assert copy.held_from == 1
        for first in (0, 2, 4):
            with pytest.raises(LedgerError, match="asked for before"):
                copy.follow(first, b"".join(lines[first:]))
        with pytest.raises(LedgerError, match="otherwise"):
            copy.follow(0, b"".join(told(6)))
        copy.read()
        assert copy.held_from == 0
        assert copy.record.releases == {0: (5,)}


def test_what_is_remembered_of_another_file_is_not_used(told, path):
    lines = told()
    with LedgerCopy(path) as copy:
        copy.follow(0, b"".join(lines[:2]))
        kept = copy.keep()
    follow(path, 2, lines[2:])
    path.unlink()
    with LedgerCopy(path, kept) as copy, pytest.raises(Behind):
        copy.follow(2, b"".join(lines[2:]))


def test_of_a_file_that_has_grown_only_what_is_new_is_read(told, path, monkeypatch):
    lines = told()
    with LedgerCopy(path) as copy:
        copy.follow(0, b"".join(lines[:2]))
        kept = copy.keep()
    follow(path, 2, lines[2:])
    read: list[bytes] = []
    accept = ledger_copy.accept
    monkeypatch.setattr(
        ledger_copy,
        "accept",
        lambda record, line, **where: (read.append(line), accept(record, line, **where)),
    )
    with LedgerCopy(path, kept) as copy:
        assert (copy.record.charges, copy.record.releases, copy.held_from) == (2, {0: (5,)}, 0)
        with pytest.raises(LedgerError, match="asked for before"):
            copy.follow(4, b"")
    assert read == [line[:-1] for line in lines[2:]]


def test_a_longer_file_in_the_place_of_what_is_remembered_is_read_from_the_beginning(told, path):
    with LedgerCopy(path) as copy:
        copy.follow(0, b"".join(told()[:2]))
        kept = copy.keep()
    other = path.parent / "other.jsonl"
    with Ledger(other, HEADER | {"steps": 4}) as ledger:
        ledger.charge()
        ledger.release(0, [6])
        ledger.charge()
    path.write_bytes(other.read_bytes())
    with LedgerCopy(path, kept) as copy:
        assert copy.record.header["steps"] == 4
        assert copy.record.releases == {0: (6,)}
        assert copy.held_from == 0


@pytest.mark.parametrize("another_file", [False, True])
def test_an_equally_long_file_in_the_place_of_what_is_remembered_is_read(told, path, another_file):
    with LedgerCopy(path) as copy:
        copy.follow(0, b"".join(told(5)))
        kept = copy.keep()
    was = path.stat()
    other = b"".join(told(6))
    assert len(other) == was.st_size
    if another_file:
        place = path.with_name("other.jsonl")
        place.write_bytes(other)
        os.utime(place, ns=(was.st_atime_ns, was.st_mtime_ns))
        place.replace(path)
    else:
        path.write_bytes(other)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
    with LedgerCopy(path, kept) as copy:
        assert copy.record.releases == {0: (6,)}
