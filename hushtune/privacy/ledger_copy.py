"""A client's copy of the ledger that a server keeps: what it answered, and that nothing changed.

The server sends a client the lines that it has not seen, the last of which charges the round that
is asked for. The client checks every line against the hash of the one before, appends them to its
own file and syncs it before it computes anything. So, as long as it has that file, it answers a
charge once, whatever is asked; it notices a ledger that was set back or told differently; and it
has what it needs to make the model of every round by itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hushtune.privacy import chain
from hushtune.privacy.chain import ChainError
from hushtune.privacy.locked import LockedFile
from hushtune.privacy.record import LedgerError, Record, accept


class Behind(LedgerError):
    """Lines are missing between those that the copy has and those that were sent.

    Attributes:
        known: number of lines that the copy has.
    """

    def __init__(self, known: int) -> None:
        super().__init__(f"this client knows the ledger's first {known} lines only.")
        self.known = known


@dataclass
class Kept:
    """What a process remembers of a copy that it closed, so as not to read it again.

    Attributes:
        file: which file it was.
        bytes: how long.
        written: when it was written to, in nanoseconds.
        lines: number of lines.
        record: what it says, without all releases but the last one.
    """

    file: int
    bytes: int
    written: int
    lines: int
    record: Record


class LedgerCopy(LockedFile):
    """The copy in a file, made if there is none; holds an exclusive lock on it until closed.

    Args:
        path: of the file.
        kept: what the process remembers of it. Of a file that has grown, as where another process
            answered for the same owner in between, what is new is read; of another one, all.

    Attributes:
        record: what it says.
        held_from: the first charge whose release the record has, if there was one.

    Raises:
        LedgerError: if another process holds it, or it does not verify.
    """

    def __init__(self, path: Path, kept: Kept | None = None) -> None:
        super().__init__(path, held="another process answers with this copy.")
        try:
            if kept is None or not self._goes_on_from(kept):
                self.read()
        except BaseException:
            self.close()
            raise

    def read(self) -> None:
        """Read and verify the whole file."""
        self.record, self._count, self.held_from = Record(header={}), 0, 0
        self._read_on(0)

    def _read_on(self, start: int) -> None:
        """Read and verify what comes after so many bytes."""
        with self._path.open("rb") as file:
            file.seek(start)
            *whole, torn = file.read().split(b"\n")
        _accept(self.record, [line + b"\n" for line in whole], after=self._count)
        self._count += len(whole)
        # A line that was cut short was answered by nobody: answers follow the sync.
        os.ftruncate(self._file, os.fstat(self._file).st_size - len(torn))

    def keep(self) -> Kept:
        """What to remember; the record is no longer this copy's then."""
        releases, last = self.record.releases, self.record.charges - 1
        self.record.releases = {last: releases[last]} if last in releases else {}
        found = os.fstat(self._file)
        return Kept(found.st_ino, found.st_size, found.st_mtime_ns, self._count, self.record)

    def header_in(self, first: int, lines: bytes) -> dict[str, Any]:
        """The header of the ledger that is followed, or would be; nothing is added.

        Args:
            first, lines: as for `follow`.

        Raises:
            Behind, LedgerError: as `follow` does.
        """
        if self._count:
            return self.record.header
        if first:
            raise Behind(0)
        record = Record(header={})
        _accept(record, lines.splitlines(keepends=True)[:1], after=0)
        return record.header

    def follow(self, first: int, lines: bytes) -> int:
        """Add what the server says, durably; returns the charge that its last line asks for.

        Args:
            first: number of lines before the sent ones.
            lines: whole lines of the ledger.

        Raises:
            Behind: lines are missing in between.
            LedgerError: they are not what follows, say otherwise than before, or ask for a round
                that was asked for before.
            OSError: they could not be made durable; nothing may be answered.
        """
        if not 0 <= first <= self._count:
            raise Behind(self._count)
        sent = lines.splitlines(keepends=True)
        known = self._lines_from(first)
        if sent[: len(known)] != known[: len(sent)]:
            raise LedgerError("the server's ledger says otherwise than it did before.")
        new = sent[len(known) :]
        if not new:
            raise LedgerError("this round was asked for before.")
        _accept(self.record, new, after=self._count)
        charge = self.record.charges - 1
        if charge < 0 or charge in self.record.releases:
            raise LedgerError("the ledger's last line charges no round.")
        if not self._count:
            chain.make_entry_durable(self._path)
        chain.append(self._file, b"".join(new), self._path)
        self._count += len(new)
        return charge

    def _lines_from(self, first: int) -> list[bytes]:
        if first == self._count:
            return []
        return self._path.read_bytes().splitlines(keepends=True)[first:]

    def _goes_on_from(self, kept: Kept) -> bool:
        """Take over what is remembered, if the file is that or has only been added to since."""
        found = os.fstat(self._file)
        same = (found.st_size, found.st_mtime_ns) == (kept.bytes, kept.written)
        if found.st_ino != kept.file or not (same or found.st_size > kept.bytes):
            return False
        self.record, self._count = kept.record, kept.lines
        self.held_from = max(0, kept.record.charges - 1)
        try:
            self._read_on(kept.bytes)
        except LedgerError:
            return False  # other lines were put in the same place
        return True


def _accept(record: Record, lines: list[bytes], *, after: int) -> None:
    """Take in lines that come after so many others."""
    for number, line in enumerate(lines, start=after + 1):
        try:
            if not line.endswith(b"\n"):
                raise ChainError("not a whole line.")
            accept(record, line[:-1], first=number == 1)
        except ChainError as reason:
            raise LedgerError(f"line {number} of the ledger: {reason}") from None
