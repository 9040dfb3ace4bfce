"""The ledger: an append-only, hash-chained record of every charge and every release.

One JSON object a line. The first line is the header: everything that is fixed before the data
is touched. Then, for each attempted step, a *charge* (privacy budget is spent from here on,
whatever happens next) and, if the step completed, its *release* (K integers, safe to publish).

    {"header": {...}, "hash": "…"}
    {"charge": 0, "hash": "…"}
    {"release": 0, "values": [12, -7], "hash": "…"}
    {"charge": 1, "hash": "…"}

`hash` is SHA-256 over the previous line's hash and the line's own content, and a line is accepted
in one spelling only: the one that this module writes. The charge is on disk
before a unit is sampled and the release before it is applied, so a crash can lose a release but
never hide a charge. No line carries a time.

A chain of hashes shows that nothing inside was altered. It cannot show that the tail was not cut
off, that the folder was not copied and trained twice, or that noise was in fact added.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_GENESIS = hashlib.sha256(b"hushtune ledger").hexdigest()


class LedgerError(Exception):
    """A ledger that cannot be trusted or used; the message names the line and the reason."""


class StepFailed(LedgerError):
    """A charged step that could not be computed; says nothing of what was computed."""


class BudgetSpent(LedgerError):
    """All planned steps have been charged."""


@dataclass
class Record:
    """What a ledger says.

    Attributes:
        header: the first line's content.
        charges: number of steps charged, a torn last line included.
        releases: released integers by charge index; charges whose release was lost are absent.
        head: hash of the last whole line.
        torn: bytes of a last line that was not written completely, if any.
    """

    header: dict[str, Any]
    charges: int = 0
    releases: dict[int, tuple[int, ...]] = field(default_factory=dict)
    head: str = _GENESIS
    torn: bytes = b""


def read(path: str | os.PathLike[str]) -> Record:
    """Read and verify a ledger; needs no lock, so a running training can be inspected.

    Raises:
        LedgerError: for an altered, missing, reordered or malformed line, with its number.
    """
    content = Path(path).read_bytes()
    *lines, torn = content.split(b"\n")
    if not lines:
        raise LedgerError(f"{path}: no complete header line; nothing was charged.")
    record = Record(header={}, torn=torn)
    for number, line in enumerate(lines, start=1):
        _accept(record, line, f"{path}, line {number}", first=number == 1)
    if torn and _torn_line_may_be_a_charge(record):
        record.charges += 1
    return record


class Ledger:
    """The ledger of a running training; holds an exclusive lock on the file until closed."""

    def __init__(self, path: str | os.PathLike[str], header: dict[str, Any]) -> None:
        """Open the ledger at `path`, or begin it with `header` when there is none.

        A torn last line is cut off; where it may have been a charge, it is charged again.

        Raises:
            LedgerError: if another process holds the ledger, it does not verify, or its header
                differs from `header`.
        """
        self._path = Path(path)
        new_folders = _make_folder(self._path.parent)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._lock()
            if b"\n" not in self._path.read_bytes():
                os.ftruncate(self._file, 0)  # not even a header: nothing was charged
                if not _states_its_steps(header):
                    raise LedgerError(f"{self._path}: the header's steps are not its plan's.")
                self._record = Record(header=header)
                self._append({"header": header})
                # An entry is durable once the folder that holds it is, up to the first old one.
                for folder in (self._path.parent, *(new.parent for new in new_folders)):
                    _sync_folder(folder)
            else:
                self._record = read(self._path)
                self._require_same_header(header)
                self._recover()
        except BaseException:
            self.close()
            raise

    @property
    def header(self) -> dict[str, Any]:
        """The first line's content."""
        return self._record.header

    @property
    def charges(self) -> int:
        """Number of steps charged so far; also the index of the next charge."""
        return self._record.charges

    @property
    def releases(self) -> dict[int, tuple[int, ...]]:
        """Released integers by charge index."""
        return self._record.releases

    @property
    def head(self) -> str:
        """Hash of the last line; kept elsewhere, it shows that no tail was cut off."""
        return self._record.head

    def charge(self) -> int:
        """Spend one step's budget, durably, and return its index.

        Raises:
            BudgetSpent: if all planned steps have been charged.
            OSError: if the charge could not be made durable; the run must stop.
        """
        planned = self._record.header["steps"]
        if self._record.charges >= planned:
            raise BudgetSpent(f"{self._path}: all {planned} planned steps have been charged.")
        index = self._record.charges
        self._append({"charge": index})
        self._record.charges += 1
        return index

    def release(self, index: int, values: Sequence[int]) -> None:
        """Record durably what charge `index` released, before it is applied.

        Raises:
            LedgerError: if `index` is not the last charge or already has a release, or `values`
                is not what the header's plan says a release is.
            OSError: if the release could not be made durable; the run must stop.
        """
        if index != self._record.charges - 1 or index in self._record.releases:
            raise LedgerError(f"{self._path}: charge {index} cannot be released (again).")
        if problem := _problem_of_release(self._record.header, list(values)):
            raise LedgerError(f"{self._path}: {problem}")
        self._append({"release": index, "values": list(values)})
        self._record.releases[index] = tuple(values)

    def close(self) -> None:
        """Release the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerError(
                f"{self._path}: another process is training in this run folder."
            ) from None

    def _require_same_header(self, header: dict[str, Any]) -> None:
        known = self._record.header
        wanted = json.loads(_canonical(header))
        changed = sorted(
            key for key in known.keys() | wanted.keys() if known.get(key) != wanted.get(key)
        )
        if changed:
            raise LedgerError(
                f"{self._path} belongs to a different run ({', '.join(changed)} differ): "
                "repeat the original command, or choose another output folder."
            )

    def _recover(self) -> None:
        # A crash in the middle of this may lose a torn charge. That hides nothing: `charge` had not
        # returned when its line tore, so nobody was sampled.
        if not self._record.torn:
            return
        charged = self._record.charges
        os.ftruncate(self._file, os.fstat(self._file).st_size - len(self._record.torn))
        self._record = read(self._path)
        if self._record.charges < charged:
            self._append({"charge": self._record.charges, "torn": True})
            self._record.charges = charged

    def _append(self, content: dict[str, Any]) -> None:
        head = _chain(self._record.head, content)
        line = _canonical({**content, "hash": head}).encode() + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(f"{self._path}: a ledger line could not be written completely.")
            os.fsync(self._file)
        except BaseException:
            # What is on disk is unknown now, and a second fsync may report success all the same:
            # only reading the file again can tell.
            self.close()
            raise
        self._record.head = head


def _accept(record: Record, line: bytes, place: str, *, first: bool) -> None:
    """Check one line against what came before and add it to the record."""
    try:
        content = json.loads(line)
        claimed = content.pop("hash")
        # One spelling only, so that a byte cannot change without changing the content.
        canonical = _canonical({**content, "hash": claimed}).encode() == line
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        canonical = False
    if not canonical:
        raise LedgerError(f"{place}: not a ledger line.")
    if claimed != _chain(record.head, content):
        raise LedgerError(f"{place}: the hash does not match; this line or one before it changed.")
    match content:
        case {"header": dict(header)} if first and _states_its_steps(header):
            record.header = header
        case {"charge": int(index)} if not first and index == record.charges:
            if index >= record.header["steps"]:
                raise LedgerError(f"{place}: charge {index} is beyond the planned steps.")
            record.charges += 1
        case {"release": int(index), "values": list(values)} if (
            not first and index == record.charges - 1 and index not in record.releases
        ):
            if problem := _problem_of_release(record.header, values):
                raise LedgerError(f"{place}: {problem}")
            record.releases[index] = tuple(values)
        case _:
            raise LedgerError(f"{place}: not what may follow here.")
    record.head = claimed


def _torn_line_may_be_a_charge(record: Record) -> bool:
    is_release = record.torn.startswith(b'{"r')
    return not is_release and record.charges < record.header["steps"]


def _states_its_steps(header: dict[str, Any]) -> bool:
    """Whether the header limits the charges, to the number that its plan accounts for."""
    steps, plan = header.get("steps"), header.get("plan", {})
    return type(steps) is int and isinstance(plan, dict) and plan.get("steps", steps) == steps


def _problem_of_release(header: dict[str, Any], values: list[Any]) -> str | None:
    if not all(type(value) is int for value in values):
        return "a release holds integers only."
    if len(values) != header.get("plan", {}).get("directions", len(values)):
        return "a release does not hold one integer for each direction of the plan."
    return None


def _chain(previous: str, content: dict[str, Any]) -> str:
    return hashlib.sha256(f"{previous}\n{_canonical(content)}".encode()).hexdigest()


def _canonical(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder with its parents; returns those that are new, innermost first."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return new


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
