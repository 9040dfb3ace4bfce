"""What a ledger says, and whether to believe it: reading and verifying, line by line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hushtune.privacy import chain
from hushtune.privacy.chain import ChainError

_GENESIS = chain.genesis("hushtune ledger")

#: What a line holds besides its hash; "torn" marks a charge in place of a line that was cut short.
_FORMS = ({"header"}, {"charge"}, {"charge", "torn"}, {"release", "values"})

_WAY_ON = "Put back a copy of the file; a new run would be a new budget on top of this one."


class LedgerError(ChainError):
    """A ledger that cannot be trusted or used; the message names the line and the reason."""


@dataclass
class Record:
    """What a ledger says.

    Attributes:
        header: the first line's content.
        charges: number of steps charged, a torn last line included.
        releases: released integers by charge index; charges whose release was lost are absent.
        hashes: of the whole lines, in order.
        torn: bytes of a last line that was not written completely, if any.
        torn_charge: whether the torn line is counted as a charge.
    """

    header: dict[str, Any]
    charges: int = 0
    releases: dict[int, tuple[int, ...]] = field(default_factory=dict)
    hashes: list[str] = field(default_factory=list)
    torn: bytes = b""
    torn_charge: bool = False

    @property
    def head(self) -> str:
        """Hash of the last whole line; kept elsewhere, it shows that no tail was cut off."""
        return self.hashes[-1] if self.hashes else _GENESIS

    def lines_since(self, head: str) -> int | None:
        """How many whole lines follow the one whose hash begins with `head`; None without one."""
        lines = (n for n, each in enumerate(reversed(self.hashes)) if each.startswith(head))
        return next(lines, None)


def begun(path: Path) -> Record | None:
    """What a ledger says that may not be there; None where no header was written whole.

    Raises:
        LedgerError: if it does not verify.
    """
    return read(path) if path.exists() and b"\n" in path.read_bytes() else None


def read(path: str | os.PathLike[str]) -> Record:
    """Read and verify a ledger; needs no lock, so a running training can be inspected.

    Raises:
        LedgerError: for an altered, missing, reordered or malformed line, with its number.
    """
    content = Path(path).read_bytes()
    *lines, torn = content.split(b"\n")
    if not lines:
        raise LedgerError(f"{path}: no complete header line; nothing was charged.")
    record = Record(header={}, torn=torn)
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            accept(record, line, first=number == 1)
        number += 1
        _accept_torn(record)
    except ChainError as refusal:
        raise LedgerError(f"{path}, line {number}: {refusal} {_WAY_ON}") from None
    return record


def accept(record: Record, line: bytes, *, first: bool) -> None:
    """Check one line, without its newline, against what came before and add it to the record.

    Raises:
        ChainError: if it may not follow.
    """
    content, claimed = chain.read_line(record.head, line)
    match content if content.keys() in _FORMS else None:
        case {"header": dict(header)} if first and states_its_steps(header):
            record.header = header
        case {"charge": int(index)} if not first and index == record.charges:
            if index >= record.header["steps"]:
                raise LedgerError(f"charge {index} is beyond the planned steps.")
            record.charges += 1
        case {"release": int(index), "values": list(values)} if (
            not first and index == record.charges - 1 and index not in record.releases
        ):
            if problem := problem_of_release(record.header, values):
                raise LedgerError(problem)
            record.releases[index] = tuple(values)
        case _:
            raise LedgerError("not what may follow here.")
    record.hashes.append(claimed)


def _accept_torn(record: Record) -> None:
    """Count a torn last line as a charge unless it can be none."""
    # A line closes a brace only where it ends; some file systems leave zeros after a crash.
    if b"}" in record.torn.rstrip(b"\0")[:-1]:
        raise LedgerError("something other than a line's end follows a whole line.")
    is_release = record.torn.startswith(b'{"r')
    room = record.charges < record.header["steps"]
    record.torn_charge = bool(record.torn) and not is_release and room
    record.charges += record.torn_charge


def states_its_steps(header: dict[str, Any]) -> bool:
    """Whether the header limits the charges, to the number that its plan accounts for."""
    steps, plan = header.get("steps"), header.get("plan", {})
    return type(steps) is int and isinstance(plan, dict) and plan.get("steps", steps) == steps


def problem_of_release(header: dict[str, Any], values: list[Any]) -> str | None:
    """Why `values` are not what the header's plan releases in a step, if they are not."""
    if not {*map(type, values)} <= {int}:
        return "a release holds integers only."
    if len(values) != header.get("plan", {}).get("directions", len(values)):
        return "a release does not hold one integer for each direction of the plan."
    return None
