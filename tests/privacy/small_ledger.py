"""A ledger of a few lines, for tests of the ledger alone."""

from __future__ import annotations

from pathlib import Path

from hushtune.privacy.ledger import Ledger

HEADER = {"steps": 4, "plan": {"steps": 4, "directions": 2}, "label": "négatif", "rate": 1e-5}


def write(path: Path, charges: int, *, release_last: bool = True) -> list[bytes]:
    """So many charges with their releases; returns the file's lines."""
    with Ledger(path, HEADER) as ledger:
        for index in range(charges):
            ledger.charge()
            if release_last or index < charges - 1:
                ledger.release(index, [index, -(10**12) - index])
    return path.read_bytes().splitlines(keepends=True)
