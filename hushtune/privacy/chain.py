"""A chain of JSON lines: each carries a hash over the line before and its own content.

Ledger and registry are such chains. A line is accepted in one spelling only, so that no byte can
change without changing the content, and no content without breaking the chain behind it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


class ChainError(Exception):
    """A chain that cannot be trusted or used; the message names the line and the reason."""


def genesis(name: str) -> str:
    """The hash that the first line of a chain of this kind follows."""
    return hashlib.sha256(name.encode()).hexdigest()


def make_line(previous: str, content: dict[str, Any]) -> tuple[bytes, str]:
    """The line that follows the hash `previous`, with its newline, and its own hash."""
    head = _hash(previous, content)
    return _canonical({**content, "hash": head}).encode() + b"\n", head


def read_line(previous: str, line: bytes, place: str) -> tuple[dict[str, Any], str]:
    """The content of a line (without its newline) that follows `previous`, and its hash.

    Raises:
        ChainError: with `place`, if this is no such line.
    """
    try:
        content = json.loads(line)
        claimed = content.pop("hash")
        canonical = _canonical({**content, "hash": claimed}).encode() == line
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        canonical = False
    if not canonical:
        raise ChainError(f"{place}: not a line of this file.")
    if claimed != _hash(previous, content):
        raise ChainError(f"{place}: the hash does not match; this line or one before it changed.")
    return content, claimed


def as_written(value: dict[str, Any]) -> dict[str, Any]:
    """The value as it comes back from a line: tuples are lists, keys are text."""
    return json.loads(_canonical(value))


def append(file: int, line: bytes) -> None:
    """Write a line to the end of an open file, durably.

    Raises:
        OSError: if it may not be durable. What is on disk is unknown then, and a second fsync may
            report success all the same: only reading the file again can tell.
    """
    if os.write(file, line) != len(line):
        raise OSError("a line could not be written completely.")
    os.fsync(file)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder with its parents; returns those that are new, innermost first."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return new


def sync_folders(folder: Path, new: list[Path]) -> None:
    """Make an entry of `folder` durable: the entry of each new folder too, up to an old one."""
    for each in (folder, *(made.parent for made in new)):
        descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _hash(previous: str, content: dict[str, Any]) -> str:
    return hashlib.sha256(f"{previous}\n{_canonical(content)}".encode()).hexdigest()


def _canonical(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
