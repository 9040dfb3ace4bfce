"""A file that one process at a time appends to."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from hushtune.privacy.record import LedgerError


class LockedFile:
    """A file, made if there is none, with an exclusive lock on it until it is closed.

    Args:
        path: of the file; folders on the way are made.
        held: what to say if another process holds it.

    Raises:
        LedgerError: if one does.
    """

    def __init__(self, path: Path, *, held: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            self.close()
            if isinstance(error, BlockingIOError):
                raise LedgerError(f"{path}: {held}") from None
            raise

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def close(self) -> None:
        """Release the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
