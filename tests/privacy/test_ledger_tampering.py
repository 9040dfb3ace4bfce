"""Nothing inside a ledger can be altered unseen, and the refusal names the line."""

from __future__ import annotations

import hashlib
import json
import os
from itertools import accumulate, combinations, product
from pathlib import Path

import pytest
from small_ledger import HEADER, write

from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger, LedgerError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "ledger.jsonl"


def refusal_of(path: Path) -> str:
    with pytest.raises(LedgerError) as refusal:
        ledgers.read(path)
    assert str(path) in str(refusal.value)
    return str(refusal.value)


def test_every_flipped_bit_is_found_at_its_line(path: Path):
    lines = write(path, 1)
    ends = list(accumulate(map(len, lines)))
    whole = b"".join(lines)
    with path.open("r+b", buffering=0) as file:
        for place, bit in product(range(len(whole)), range(8)):
            number = next(index for index, end in enumerate(ends, start=1) if place < end)
            os.pwrite(file.fileno(), bytes([whole[place] ^ 1 << bit]), place)
            assert f"{path}, line {number}: " in refusal_of(path), (place, bit)
            os.pwrite(file.fileno(), whole[place : place + 1], place)
    assert ledgers.read(path).charges == 1


@pytest.mark.parametrize("release_last", [False, True], ids=["charge", "release"])
def test_a_last_line_with_another_end_is_not_taken_for_a_torn_one(path: Path, release_last: bool):
    whole = b"".join(write(path, 2, release_last=release_last))[:-1]
    number = 5 if release_last else 4
    for end in (b" ", b"\r", b"\x0b", b"{", b"}", b'{"charge"'):
        path.write_bytes(whole + end)
        assert f"line {number}: something other than a line's end" in refusal_of(path)
        with pytest.raises(LedgerError, match="a line's end"):
            Ledger(path, HEADER)
        assert path.read_bytes() == whole + end


def test_other_spellings_of_the_same_line_are_refused(path: Path):
    lines = write(path, 1)
    spellings = [
        lines[0].replace(b'"steps":4', b'"steps": 4', 1),
        lines[0].replace(rb"\u00e9", "é".encode()),
        lines[0].replace(b"1e-05", b"0.00001"),
        lines[0].replace(b'{"header"', b'{"header":1,"header"'),
    ]
    for spelling in spellings:
        assert spelling != lines[0]
        path.write_bytes(b"".join([spelling, *lines[1:]]))
        assert "line 1: not a line of this file" in refusal_of(path)


def test_removed_lines_are_found_unless_they_are_the_last(path: Path):
    lines = write(path, 4)
    for first, end in combinations(range(len(lines)), 2):
        path.write_bytes(b"".join(lines[:first] + lines[end:]))
        assert f"line {first + 1}: " in refusal_of(path), (first, end)
    # Against this a head that is kept elsewhere helps, and nothing else.
    path.write_bytes(b"".join(lines[:-1]))
    assert ledgers.read(path).charges == 4


def test_any_two_lines_that_change_places_are_found(path: Path):
    lines = write(path, 4)
    for one, other in combinations(range(len(lines)), 2):
        swapped = list(lines)
        swapped[one], swapped[other] = lines[other], lines[one]
        path.write_bytes(b"".join(swapped))
        assert f"line {one + 1}: " in refusal_of(path), (one, other)


def test_a_repeated_line_is_found(path: Path):
    lines = write(path, 3)
    for first in range(len(lines)):
        path.write_bytes(b"".join([*lines[: first + 1], lines[first], *lines[first + 1 :]]))
        assert f"line {first + 2}:" in refusal_of(path)


def with_hash(previous: str, content: dict) -> tuple[bytes, str]:
    """A line with the hash that belongs there, made without the ledger's own code."""
    spelled = json.dumps(content, separators=(",", ":"))
    hash_ = hashlib.sha256(f"{previous}\n{spelled}".encode()).hexdigest()
    return json.dumps({**content, "hash": hash_}, separators=(",", ":")).encode() + b"\n", hash_


def test_an_edited_value_with_a_hash_to_match_is_found_at_the_next_line(path: Path):
    lines = write(path, 2)
    previous = json.loads(lines[1])["hash"]
    lines[2], _ = with_hash(previous, {"release": 0, "values": [1, 1]})
    path.write_bytes(b"".join(lines))
    assert "line 4: the hash does not match" in refusal_of(path)


@pytest.mark.parametrize(
    "content",
    [
        {"charge": 1},
        {"charge": 3},
        {"charge": 4},
        {"charge": 2.0},
        {"release": 1, "values": [1, 2]},
        {"release": 2, "values": [1, 2]},
        {"release": 0, "values": [1, 2]},
        {"release": 1, "values": [1.0, 2]},
        {"release": 1, "values": 3},
        {"header": HEADER},
        {"charge": 2, "at": "2026-01-01"},
        {"charge": 2, "values": [1, 2]},
        {"release": 1, "values": [1, 2], "loss": 0.5},
        {"something": "else"},
        {},
    ],
)
def test_a_line_that_may_not_follow_is_refused_even_with_the_right_hash(path: Path, content):
    lines = write(path, 2)
    line, _ = with_hash(json.loads(lines[-1])["hash"], content)
    path.write_bytes(b"".join([*lines, line]))
    assert "line 6:" in refusal_of(path)


def test_charges_beyond_the_plan_are_refused_even_with_the_right_hash(path: Path):
    lines = write(path, 4)
    line, _ = with_hash(json.loads(lines[-1])["hash"], {"charge": 4})
    path.write_bytes(b"".join([*lines, line]))
    assert "beyond the planned steps" in refusal_of(path)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"steps": "4"},
        {"steps": True},
        {"steps": 4.0},
        {"steps": 5000, "plan": {"steps": 4, "directions": 2}},
    ],
)
def test_a_header_must_limit_the_charges_to_what_is_accounted(path: Path, header):
    genesis = hashlib.sha256(b"hushtune ledger").hexdigest()
    path.parent.mkdir(parents=True)
    path.write_bytes(with_hash(genesis, {"header": header})[0])
    assert "line 1:" in refusal_of(path)


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b"null", b"\xff\xfe", b'{"rate":NaN,"hash":"x"}', b"[" * 10**5]
)
def test_a_line_that_is_no_ledger_line_is_refused_with_its_number(path: Path, line: bytes):
    lines = write(path, 1)
    content = b"".join([*lines, line, b"\n"])
    path.write_bytes(content)
    refusal = refusal_of(path)
    assert "line 4: not a line of this file. Put back a copy of the file" in refusal
    assert len(refusal.splitlines()) == 1
    # Nothing is repaired: a whole line that is wrong is no crash's doing.
    with pytest.raises(LedgerError, match="line 4: not a line of this file"):
        Ledger(path, HEADER)
    assert path.read_bytes() == content
