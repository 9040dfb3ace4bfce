"""A client's copy of the ledger that a server keeps: what it answered, and that nothing changed.

The server sends a client the lines that it has not seen, the last of which charges the round that
is asked for. The client checks every line against the hash of the one before, appends them to its
own file and syncs it before it computes anything. So it answers a charge once, whatever is asked;
it notices a ledger that was set back or told differently; and it has what it needs to make the
model of every round by itself.
"""

from __future__ import annotations

import os
from pathlib import Path

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


class LedgerCopy(LockedFile):
    """The copy in a file, made if there is none; holds an exclusive lock on it until closed.

    Attributes:
        record: what it says.

    Raises:
        LedgerError: if another process holds it, or it does not verify.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, held="another process answers with this copy.")
        try:
            self._read()
        except BaseException:
            self.close()
            raise

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
        if not 0 <= first <= len(self._lines):
            raise Behind(len(self._lines))
        sent = lines.splitlines(keepends=True)
        known = self._lines[first:]
        if sent[: len(known)] != known[: len(sent)]:
            raise LedgerError("the server's ledger says otherwise than it did before.")
        new = sent[len(known) :]
        if not new:
            raise LedgerError("this round was asked for before.")
        self._accept(new)
        charge = self.record.charges - 1
        if charge < 0 or charge in self.record.releases:
            raise LedgerError("the ledger's last line charges no round.")
        if not self._lines:
            chain.make_entry_durable(self._path)
        chain.append(self._file, b"".join(new), self._path)
        self._lines += new
        return charge

    def _read(self) -> None:
        self.record = Record(header={})
        self._lines: list[bytes] = []
        *whole, torn = self._path.read_bytes().split(b"\n")
        lines = [line + b"\n" for line in whole]
        self._accept(lines)
        self._lines = lines
        # A line that was cut short was answered by nobody: answers follow the sync.
        os.ftruncate(self._file, os.fstat(self._file).st_size - len(torn))

    def _accept(self, lines: list[bytes]) -> None:
        for number, line in enumerate(lines, start=len(self._lines) + 1):
            try:
                if not line.endswith(b"\n"):
                    raise ChainError("not a whole line.")
                accept(self.record, line[:-1], first=number == 1)
            except ChainError as reason:
                raise LedgerError(f"line {number} of the ledger: {reason}") from None
