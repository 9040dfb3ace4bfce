"""Ask all clients the same, and sort what comes back: answers that can be used, and faults."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hushtune.config import Config
from hushtune.federated.messages import DESCRIBE, REFUSED, ROUND, Answer, Clients, packed
from hushtune.privacy.lines import LedgerLines
from hushtune.privacy.rounds import Rounds, UnusableShare

#: A fault: who, and what about them.
Fault = tuple[int, str]

#: More units than this nobody has; what a client says is checked before it is added up.
_MOST_UNITS = 2**40

#: Of a client that is known, and not there.
_GONE = "is not there"

#: The longest refusal that is shown.
_SHOWN = 200


@dataclass
class Shares:
    """What came back of a round.

    Attributes:
        values: integers that can be used, by client.
        faults: of the other answers, and of those that did not come.
        asked: how many clients were asked.
        unusable: how many of them answered what cannot be used, a refusal for one.
    """

    values: dict[int, list[int]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: int = 0
    unusable: int = 0


def describe(
    clients: Clients, ids: Sequence[int], config: Config, run: str, *, seconds: float
) -> tuple[dict[int, int], list[Fault], list[int]]:
    """How many units each client says it holds, faults of the others, and those that had gone.

    Args:
        run: the run's name, "" of one that has no ledger yet.
    """
    question = {"config": json.dumps(config.to_json()), "run": run}
    units: dict[int, int] = {}
    faults: list[Fault] = []
    gone: list[int] = []
    for answer in clients.ask(DESCRIBE, dict.fromkeys(ids, question), seconds=seconds):
        held = _item(answer, "units")
        if answer.gone:
            gone.append(answer.client)
        elif (words := _refusal(answer)) is not None:
            faults.append((answer.client, words))
        elif type(held) is not int or not 0 <= held <= _MOST_UNITS:
            faults.append((answer.client, "did not say how many units it holds"))
        else:
            units[answer.client] = held
    silent = set(ids) - set(units) - set(gone) - {client for client, _ in faults}
    faults += [(client, _not_in(seconds)) for client in sorted(silent)]
    return units, faults, gone


def shares(
    clients: Clients,
    rounds: Rounds,
    charge: int,
    lines: LedgerLines,
    known: MutableMapping[int, int],
    units: Mapping[int, int],
    *,
    seconds: float,
) -> Shares:
    """Ask for a round, once of each client.

    Args:
        charge: the round's index.
        lines: of the ledger, the last of which charges the round.
        known: how many of them each client has been seen to have; brought up to date.
        units: how many units each client said it holds.
        seconds: that all of it may take.
    """
    until = time.monotonic() + seconds
    asked = [client for client in clients.ids() if client in units]
    found = Shares(asked=len(asked))
    heard: set[int] = set()
    found.faults += [(client, _GONE) for client in sorted(set(units) - set(asked))]
    again = {client: known.get(client, 0) for client in asked}
    # A client that lost its copy says what it has, and gets the rest; that happens once.
    for _ in range(2):
        asked_for = {first: packed(lines.since(first)) for first in set(again.values())}
        questions = {
            client: {"first": first, "lines": asked_for[first]} for client, first in again.items()
        }
        again = {}
        left = max(0.0, until - time.monotonic())
        for answer in _answers(clients, questions, left):
            client = answer.client
            has = _item(answer, "known")
            if client in heard:
                found.faults.append((client, "answered twice; its first answer counts"))
            elif type(has) is int and 0 <= has < len(lines) and has != known.get(client, 0):
                known[client] = again[client] = has
            else:
                heard.add(client)
                try:
                    found.values[client] = _share(answer, rounds, charge, units[client])
                    known[client] = len(lines)
                except UnusableShare as problem:
                    found.faults.append((client, str(problem)))
                    found.unusable += not answer.gone
        if not again:
            break
    found.faults += [(client, _not_in(seconds)) for client in asked if client not in heard]
    return found


def _answers(
    clients: Clients, questions: Mapping[int, Mapping[str, Any]], seconds: float
) -> Iterator[Answer]:
    """Those of clients that were asked; nobody else has a share."""
    for answer in clients.ask(ROUND, questions, seconds=seconds):
        if answer.client in questions:
            yield answer


def _share(answer: Answer, rounds: Rounds, charge: int, units: int) -> list[int]:
    """A client's integers; raises UnusableShare."""
    if (words := _refusal(answer)) is not None:
        raise UnusableShare(words)
    if _item(answer, "charge") != charge:
        raise UnusableShare("answered another round than it was asked for")
    return rounds.share(_item(answer, "values"), units=units)


def _refusal(answer: Answer) -> str | None:
    """What a client says that does not answer, or that it says nothing that can be read."""
    if answer.gone:
        return _GONE
    if answer.content is None:
        return "sent nothing that can be read"
    words = answer.content.get(REFUSED)
    if words is None:
        return None
    shown = "".join(each for each in str(words) if each.isprintable())[:_SHOWN].rstrip(".")
    return f"refuses: {shown}"


def _item(answer: Answer, name: str) -> Any:
    return None if answer.content is None else answer.content.get(name)


def _not_in(seconds: float) -> str:
    return f"did not answer within {seconds:g} s"
