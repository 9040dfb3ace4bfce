"""The ledger: an append-only, hash-chained record of every charge and every release.

One JSON object a line. The first line is the header: everything that is fixed before the data
is touched. Then, for each attempted step, a *charge* (privacy budget is spent from here on,
whatever happens next) and, if the step completed, its *release* (K integers, safe to publish).

    {"header": {...}, "hash": "…"}
    {"charge": 0, "hash": "…"}
    {"release": 0, "values": [12, -7], "hash": "…"}
    {"charge": 1, "hash": "…"}

`hash` is SHA-256 over the previous line's hash and the line's own content, and a line is accepted
in one spelling only: the one written here. The charge is on disk before a unit is sampled and the
release before it is applied, so a crash can lose a release but never hide a charge. No line carries
a time.

A last line that a crash cut short counts as a charge unless it began as a release. The next
training replaces it, and writes `{"charge": 1, "torn": true, "hash": "…"}` for a charge.

A chain of hashes shows that nothing inside was altered. It cannot show that the tail was not cut
off, that the folder was not copied and trained twice, or that noise was in fact added.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hushtune.privacy import chain
from hushtune.privacy.locked import LockedFile
from hushtune.privacy.record import (
    LedgerError,
    Record,
    begun,
    problem_of_release,
    read,
    states_its_steps,
)

__all__ = ["BudgetSpent", "Ledger", "LedgerError", "Record", "StepFailed", "begun", "read"]


class StepFailed(LedgerError):
    """A charged step that could not be computed; says nothing of what was computed."""


class BudgetSpent(LedgerError):
    """All planned steps have been charged."""


class Ledger(LockedFile):
    """The ledger of a running training; holds an exclusive lock on the file until closed."""

    def __init__(self, path: str | os.PathLike[str], header: dict[str, Any]) -> None:
        """Open the ledger at `path`, or begin it with `header` when there is none.

        A torn last line is cut off; where it may have been a charge, a charge takes its place.

        Raises:
            LedgerError: if another process holds the ledger, it does not verify, or its header
                differs from `header`.
        """
        super().__init__(Path(path), held="another process is training in this run folder.")
        try:
            if b"\n" not in self._path.read_bytes():
                self._begin(header)
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
        """Hash of the last line."""
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
        if problem := problem_of_release(self._record.header, list(values)):
            raise LedgerError(f"{self._path}: {problem}")
        self._append({"release": index, "values": list(values)})
        self._record.releases[index] = tuple(values)

    def _require_same_header(self, header: dict[str, Any]) -> None:
        known = self._record.header
        wanted = chain.as_written(header)
        changed = sorted(
            key for key in known.keys() | wanted.keys() if known.get(key) != wanted.get(key)
        )
        if changed:
            raise LedgerError(
                f"{self._path} belongs to a different run ({', '.join(changed)} differ): "
                "repeat the original command, or choose another output folder."
            )

    def _begin(self, header: dict[str, Any]) -> None:
        if not states_its_steps(header):
            raise LedgerError(f"{self._path}: the header's steps are not its plan's.")
        # Before the header: where this fails there is no ledger yet, and the next attempt does it
        # again.
        chain.make_entry_durable(self._path)
        os.ftruncate(self._file, 0)  # of a torn header; nothing was charged
        self._record = Record(header=header)
        self._append({"header": header})

    def _recover(self) -> None:
        record, torn = self._record, self._record.torn
        if not torn:
            return
        line, head = b"", ""
        if record.torn_charge:
            line, head = chain.make_line(record.head, {"charge": record.charges - 1, "torn": True})
        # What both lines begin with stays: cut short by a crash, this leaves a torn charge again.
        kept = [*map(operator.eq, torn, line), False].index(False)
        os.ftruncate(self._file, os.fstat(self._file).st_size - len(torn) + kept)
        if record.torn_charge:
            self._write(line[kept:])
            record.hashes.append(head)
        record.torn, record.torn_charge = b"", False

    def _append(self, content: dict[str, Any]) -> None:
        line, head = chain.make_line(self._record.head, content)
        self._write(line)
        self._record.hashes.append(head)

    def _write(self, line: bytes) -> None:
        try:
            self._require_same_file()
            chain.append(self._file, line, self._path)
        except BaseException:
            self.close()
            raise

    def _require_same_file(self) -> None:
        """The lock is on the file that was opened; another one in its place is not locked."""
        try:
            here, opened = os.stat(self._path), os.fstat(self._file)
            same = (here.st_ino, here.st_dev) == (opened.st_ino, opened.st_dev)
        except FileNotFoundError:
            same = False
        if not same:
            raise LedgerError(f"{self._path}: was removed or replaced while the run went on.")
