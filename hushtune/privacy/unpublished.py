"""A run's ledger that nobody may read: that of a run in a search, unless the run wins.

It is kept in memory. The whole search was charged on disk before the first run, so no crash can
hide a charge; and a ledger that was never written leaves nothing behind, whatever ends the process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hushtune.privacy import chain
from hushtune.privacy.ledger import Ledger, states_its_steps
from hushtune.privacy.record import Record


class UnpublishedLedger(Ledger):
    """The ledger of one run of a search.

    Args:
        header: as of any run, with a plan that names its search.

    Raises:
        ValueError: if the header's plan is not one of a search, which nobody would have charged.
    """

    def __init__(self, header: dict[str, Any]) -> None:
        if "search" not in header.get("plan", {}) or not states_its_steps(header):
            raise ValueError("Expected a header whose plan is one of a search.")
        self._path = Path("a run's ledger")
        self._file = -1
        self._lines: list[bytes] = []
        self._record = Record(header=chain.as_written(header))
        self._append({"header": self._record.header})

    def publish(self, path: Path) -> None:
        """Write it, durably, as the ledger of the run that was chosen.

        Raises:
            OSError: if it could not be made durable, or is there already.
        """
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            chain.append(file, b"".join(self._lines), path)
        finally:
            os.close(file)

    def _write(self, line: bytes) -> None:
        self._lines.append(line)
