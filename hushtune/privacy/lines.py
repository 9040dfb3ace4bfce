"""The lines of a ledger that somebody follows, read once each."""

from __future__ import annotations

from pathlib import Path


class LedgerLines:
    """Whole lines of a file that grows, of which only the places are kept in memory.

    Args:
        path: of the ledger.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = [0]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def look(self) -> None:
        """Take in what was appended since."""
        start = self._starts[-1]
        for line in self._from(start).splitlines(keepends=True):
            if line.endswith(b"\n"):
                start += len(line)
                self._starts.append(start)

    def since(self, first: int) -> bytes:
        """The lines from number `first` on, counted from 0."""
        start = self._starts[first]
        return self._from(start)[: self._starts[-1] - start]

    def _from(self, start: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read()
