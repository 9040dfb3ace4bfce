"""What server and clients say to each other: plain values, under the names that are here."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hushtune.privacy.record import LedgerError

#: How many units do you hold? `config` is the run's configuration as JSON, and `run` its name, ""
#: of one that has no ledger yet; the answer has `units`.
DESCRIBE = "query.describe"

#: Add to this round: `lines` of the ledger, packed, from line number `first` on, the last of which
#: charges it. The answer has `charge` and the integers `values`, all equally long, or `known` lines
#: where some are missing.
ROUND = "train"

#: The answer of a client that does not do what it is asked; in words for the server's operator.
REFUSED = "refused"


#: Lines of a ledger are not longer than this together.
_MOST_BYTES = 2**31


def packed(lines: bytes) -> bytes:
    """Lines of a ledger as they are sent: digits and hashes take about half of their bytes."""
    return zlib.compress(lines)


def unpacked(sent: bytes) -> bytes:
    """What was packed.

    Raises:
        LedgerError: if it was not, or is too long.
    """
    unpacking = zlib.decompressobj()
    try:
        lines = unpacking.decompress(sent, _MOST_BYTES)
    except zlib.error:
        lines = b""
    if not unpacking.eof:
        raise LedgerError("the server sent no lines of a ledger that can be read.")
    return lines


class Refusal(Exception):
    """A question that a client does not answer; in words for the server, of public things only."""


@dataclass(frozen=True)
class Answer:
    """What a client answered.

    Attributes:
        client: who.
        content: what it said; None if nothing that can be read.
        gone: whether it says nothing because it is not there any more.
    """

    client: int
    content: Mapping[str, Any] | None
    gone: bool = False


class Clients(Protocol):
    """The clients as a server sees them."""

    def ids(self) -> list[int]:
        """Those that are there now, ascending."""
        ...

    def ask(
        self, kind: str, contents: Mapping[int, Mapping[str, Any]], *, seconds: float
    ) -> Iterator[Answer]:
        """Ask clients at the same time; answers as they come, until all are there or time is up."""
        ...
