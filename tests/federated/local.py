"""A federated run in one process: clients that answer at once, and those that do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers.normalizers import Precompiled

from hushtune.config import Config, from_values
from hushtune.federated.client import AtWork, Client, Owner
from hushtune.federated.messages import ROUND, Answer, unpacked
from hushtune.federated.usable import partition
from hushtune.tasks.data import LabelledText, read_labelled_text

LABELS = {"negative": "it was terrible", "positive": "it was great"}

#: From a client's answer to what arrives, a list: nothing, one or several.
Spoils = Callable[[dict[str, Any]], list[Any]]


def configuration(encoder: str, data: str, folder: Path, **federated: Any) -> Config:
    """A short run over three clients."""
    return from_values(
        {
            "model": {"name": encoder, "tune": "head"},
            "data": {"train": "what each client calls it", "eval": data, "max_length": 32},
            "task": {"labels": LABELS},
            "method": {"directions": 4, "steps": 4},
            "privacy": {"epsilon": 4.0, "mechanism": "laplace"},
            "federated": {"clients": 3, "timeout": 0.3} | federated,
            "output": str(folder / "run"),
        }
    )


def rows_of(data: str, config: Config, client: int, clients: int) -> LabelledText:
    """Every so many-th row."""
    whole = read_labelled_text(data, config.data, config.task, with_units=True)
    return partition(whole, np.arange(len(whole.texts))[client::clients])


class LocalClients:
    """Clients in this process, as a server sees them.

    Attributes:
        spoils: what happens to a client's answer to a round, by (client, round).
        gone: clients that are not there.
        clients: those that answer.
        asked: rounds that each client was asked for.
    """

    def __init__(self, data: str, config: Config, folder: Path, **of_owner: Any) -> None:
        count = config.federated.clients
        self._clients = {}
        for client in range(count):
            owner = Owner(
                name=str(client),
                **{
                    "read": lambda asked, client=client: rows_of(data, asked, client, count),
                    "folder": folder / f"client{client}",
                }
                | of_owner,
            )
            self._clients[client + 10] = Client(owner, AtWork())
        self.spoils: dict[tuple[int, int], Spoils] = {}
        self.gone: set[int] = set()
        self.asked: dict[int, list[int]] = {}
        self.rounds = 0

    def ids(self) -> list[int]:
        return [client for client in self._clients if client not in self.gone]

    def ask(
        self, kind: str, contents: Mapping[int, Mapping[str, Any]], *, seconds: float
    ) -> Iterator[Answer]:
        del seconds
        for client, content in contents.items():
            answer = self._clients[client].answer(kind, content)
            spoil = None
            if kind == ROUND and "known" not in answer:
                charge = unpacked(content["lines"]).count(b'"charge"') + content["first"]
                number = len(self.asked.setdefault(client, []))
                self.asked[client].append(charge)
                spoil = self.spoils.get((client, number))
            for arrived in [answer] if spoil is None else spoil(answer):
                yield Answer(client, arrived)


class Told:
    """What a server's operator is told."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.steps = 0
        self.metrics: dict[str, Any] = {}

    def started(self, session: Any, charges: int) -> None:
        del session, charges

    def waiting(self, there: int, wanted: int) -> None:
        del there, wanted

    def stepped(self, steps: int) -> None:
        self.steps = steps

    def evaluated(self, name: str, metrics: Mapping[str, float]) -> None:
        self.metrics[name] = dict(metrics)

    def fault(self, words: str) -> None:
        self.faults.append(words)


def panic(_: object = None) -> None:
    """Fail as a tokenizer does whose normaliser was made by somebody who does not mean well."""
    Precompiled((4 * 128).to_bytes(4, "little") + bytes(4 * 128)).normalize_str("naïve")


def without(config: Config, **changes: Any) -> Config:
    """The configuration with other federated settings."""
    return dataclasses.replace(config, federated=dataclasses.replace(config.federated, **changes))
