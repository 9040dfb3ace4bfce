"""What server and clients say to each other: plain values, under the names that are here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

#: How many units do you hold? `config` is the run's configuration as JSON; the answer has `units`.
DESCRIBE = "query.describe"

#: Add to this round: `lines` of the ledger from line number `first` on, the last of which charges
#: it. The answer has `charge` and the integers `values`, or `known` lines where some are missing.
ROUND = "train"

#: The answer of a client that does not do what it is asked; in words for the server's operator.
REFUSED = "refused"


@dataclass(frozen=True)
class Answer:
    """What a client answered.

    Attributes:
        client: who.
        content: what it said; None if nothing that can be read.
    """

    client: int
    content: Mapping[str, Any] | None


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
