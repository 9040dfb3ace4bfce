"""The charge of a whole search: on disk before the first secret number is drawn.

A search that is cut short is lost, and its budget is spent. It is never drawn again: whoever began
anew after each search that ended badly would choose among searches, which nothing accounts for. So
the record stays where a search was begun and not finished, and refuses every other one there. A
search that is finished is recorded by the ledger of the run that it chose, and the record goes, so
that no file tells when the search began.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from hushtune.privacy import chain
from hushtune.privacy.ledger import LedgerError

_GENESIS = chain.genesis("hushtune search")


class ChargedSearch:
    """The record of one search, locked while the search goes on.

    Args:
        path: the record.

    Raises:
        LedgerError: if another process searches there, or a search was charged there and lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._charged = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._lock()
            if os.fstat(self._file).st_size:
                raise LedgerError(
                    f"{path}: a search was charged here and did not end, so it is lost and its "
                    "budget is spent; a new one, in another output folder, is charged on top."
                )
        except BaseException:
            os.close(self._file)
            raise

    def charge(self, terms: dict[str, Any]) -> None:
        """Spend the search's budget, durably.

        Args:
            terms: of the search; public.

        Raises:
            OSError: if the charge could not be made durable; the search must not begin.
        """
        line, _ = chain.make_line(_GENESIS, {"search": terms})
        self._charged = True
        chain.make_entry_durable(self._path)
        chain.append(self._file, line, self._path)

    def ended(self) -> None:
        """The winner's ledger is durable and records the charge from here on."""
        self._charged = False

    def __enter__(self) -> ChargedSearch:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._charged:
            self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A record that was removed meanwhile is no longer the one that others find.
            if self._path.stat().st_ino == os.fstat(self._file).st_ino:
                return
        except (BlockingIOError, FileNotFoundError):
            pass
        raise LedgerError(f"{self._path}: another process is searching here.")
