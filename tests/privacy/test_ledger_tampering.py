"""Nothing inside a ledger can be altered unseen, and the refusal names the line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import Ledger, LedgerError

HEADER = {"steps": 4, "plan": {"steps": 4, "directions": 2}, "label": "négatif", "rate": 1e-5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "ledger.jsonl"


def write(path: Path, charges: int) -> list[bytes]:
    """So many charges with their releases; returns the file's lines."""
    with Ledger(path, HEADER) as ledger:
        for index in range(charges):
            ledger.charge()
            ledger.release(index, [index, -(10**12) - index])
    return path.read_bytes().splitlines(keepends=True)


def refusal_of(path: Path) -> str:
    with pytest.raises(LedgerError) as refusal:
        ledgers.read(path)
    assert str(path) in str(refusal.value)
    return str(refusal.value)


def test_every_changed_byte_is_found_at_its_line(path: Path):
    lines = write(path, 2)
    ends = [sum(map(len, lines[: number + 1])) for number in range(len(lines))]
    whole = b"".join(lines)
    for place in range(len(whole) - 1):  # without the last line's end, the line is a torn one
        number = next(index for index, end in enumerate(ends, start=1) if place < end)
        for flip in (0x01, 0x20):
            changed = bytearray(whole)
            changed[place] ^= flip
            path.write_bytes(changed)
            assert f"line {number}:" in refusal_of(path), (place, flip)


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
        assert "line 1: not a ledger line" in refusal_of(path)


def test_a_removed_line_is_found(path: Path):
    lines = write(path, 3)
    for removed in range(len(lines) - 1):
        path.write_bytes(b"".join(lines[:removed] + lines[removed + 1 :]))
        assert f"line {removed + 1}:" in refusal_of(path)


def test_swapped_lines_are_found(path: Path):
    lines = write(path, 3)
    for first in range(len(lines) - 1):
        swapped = [*lines[:first], lines[first + 1], lines[first], *lines[first + 2 :]]
        path.write_bytes(b"".join(swapped))
        assert f"line {first + 1}:" in refusal_of(path)


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
    path.write_bytes(b"".join([*lines, line, b"\n"]))
    assert "line 4: not a ledger line" in refusal_of(path)
