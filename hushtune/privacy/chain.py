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
    """A chain that cannot be trusted or used; the message names the reason and mostly the line."""


def genesis(name: str) -> str:
    """The hash that the first line of a chain of this kind follows."""
    return hashlib.sha256(name.encode()).hexdigest()


def make_line(previous: str, content: dict[str, Any]) -> tuple[bytes, str]:
    """The line that follows the hash `previous`, with its newline, and its own hash."""
    written = _canonical(content)
    head = _hash(previous, written)
    return _with_hash(written, head).encode() + b"\n", head


def read_line(previous: str, line: bytes) -> tuple[dict[str, Any], str]:
    """The content of a line (without its newline) that follows `previous`, and its hash.

    Raises:
        ChainError: if this is no such line.
    """
    try:
        content = json.loads(line)
        claimed = content.pop("hash")
        written = _canonical(content)
        known = _with_hash(written, claimed).encode() == line
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ChainError("not a line of this file.") from None
    if not known:
        raise ChainError("not a line of this file.")
    if claimed != _hash(previous, written):
        raise ChainError("the hash does not match; this line or one before it changed.")
    return content, claimed


def as_written(value: dict[str, Any]) -> dict[str, Any]:
    """The value as it comes back from a line: tuples are lists, keys are text."""
    return json.loads(_canonical(value))


def append(file: int, line: bytes, path: str | os.PathLike[str]) -> None:
    """Write a line to the end of an open file, durably.

    Raises:
        OSError: if it may not be durable. What is on disk is unknown then, and a second fsync may
            report success all the same: only reading the file again can tell.
    """
    try:
        if os.write(file, line) != len(line):
            raise OSError(f"{path}: a line could not be written completely.")
        os.fsync(file)
    except OSError as error:
        if error.errno:
            error.filename = str(path)
        raise


def make_entry_durable(path: Path) -> None:
    """Sync the folders above a file: it is durable once its entry is, and so on upwards."""
    for folder in path.absolute().parents:
        if not os.access(folder, os.W_OK):
            break  # what it holds was there before
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _hash(previous: str, written: str) -> str:
    return hashlib.sha256(f"{previous}\n{written}".encode()).hexdigest()


def _with_hash(written: str, head: object) -> str:
    """The line of some content that is not empty: its hash is the last of its keys."""
    return f'{written[:-1]},"hash":{_canonical(head)}}}'


def _canonical(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
