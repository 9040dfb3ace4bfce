"""The clients of a run as the server knows them: who is there, what they hold, what they know."""

from __future__ import annotations

import time
from typing import Protocol

from hushtune.config import Config, ConfigError
from hushtune.federated.asking import describe, shares
from hushtune.federated.messages import Clients
from hushtune.privacy.lines import LedgerLines
from hushtune.privacy.rounds import Rounds

#: Seconds between looks at who is there.
_LOOK = 0.2


class Progress(Protocol):
    """What a person sees of the clients."""

    def waiting(self, there: int, wanted: int) -> None:
        """So many clients of those that are wanted are there."""
        ...

    def fault(self, words: str) -> None:
        """A client did not do as it should."""
        ...


class TooFewClients(ConfigError):
    """Clients that a run needs did not come, or did not say what they hold."""


class InVain(ConfigError):
    """Clients answer rounds of the run, and what they answer cannot be used."""


class Group:
    """The clients of a run.

    Args:
        config: of the run.
        clients: whoever is there.
        progress: told of faults.
        run: the run's name, "" if it has no ledger yet.

    Attributes:
        units: how many units each client said it holds.
        run: the run's name.
    """

    def __init__(self, config: Config, clients: Clients, progress: Progress, run: str = "") -> None:
        self._config = config
        self._clients = clients
        self._progress = progress
        self.run = run
        self.units: dict[int, int] = {}
        self._strangers: set[int] = set()
        self._in_vain: list[int] = []
        self._known: dict[int, int] = {}

    def begin(self) -> int:
        """Wait for all clients and ask what they hold; returns the number of units in all.

        Raises:
            TooFewClients: saying how many of them there are.
        """
        wanted, seconds = self._config.federated.clients, self._config.federated.timeout
        until, gone = time.monotonic() + seconds, True
        # Who has just died counts as there for a while, and may be back soon.
        while gone and time.monotonic() < until:
            there = self._wait_for(wanted)
            if there < wanted:
                raise TooFewClients(
                    f"federated.clients: {wanted} were expected, {there} came in {seconds:g} s."
                )
            gone = self._meet()
        if len(self.units) < wanted:
            raise TooFewClients(
                f"federated.clients: {wanted} were expected, {len(self.units)} said what they hold."
            )
        if len(self.units) > wanted:
            raise ConfigError(f"federated.clients: {wanted} were expected, {len(self.units)} came.")
        return sum(self.units.values())

    def rejoin(self) -> int | None:
        """Meet the clients of a run that goes on: all of them, or, after a while, enough of them.

        Returns:
            The number of units in all, where all are there.

        Raises:
            TooFewClients: there were fewer than a round needs.
        """
        federated = self._config.federated
        until = time.monotonic() + federated.timeout
        self._meet()
        while (
            len(self.units) + len(self._strangers) < federated.clients and time.monotonic() < until
        ):
            time.sleep(_LOOK)
            self._meet()
        if len(self.units) < federated.least_replies:
            raise self._too_few()
        return sum(self.units.values()) if len(self.units) == federated.clients else None

    def wait(self) -> None:
        """Wait until there are as many clients as a round needs, so that none is spent on nobody.

        Raises:
            TooFewClients: they did not come back; what was charged stays charged.
            InVain: so many answers of the last two rounds could not be used that neither could be
                released. One may have been chance.
        """
        if len(self._in_vain) > 1:
            rounds = " and ".join(map(str, self._in_vain))
            raise InVain(
                f"rounds {rounds}: so many answers cannot be used that nothing is released; both "
                "are charged and skipped. Once that is mended, the same command goes on."
            )
        least = self._config.federated.least_replies
        self._meet()
        if self._wait_for(least) < least:
            raise self._too_few()

    def shares(self, rounds: Rounds, charge: int, lines: LedgerLines) -> list[list[int]]:
        """What clients add to a round that is charged; see `hushtune.federated.asking.shares`."""
        found = shares(
            self._clients,
            rounds,
            charge,
            lines,
            self._known,
            self.units,
            seconds=self._config.federated.timeout,
        )
        for client, words in found.faults:
            self._progress.fault(f"round {charge}: client {client} {words}.")
        could = found.asked - found.unusable
        vain = found.unusable > 0 and could < max(1, self._config.federated.least_replies)
        self._in_vain = [*self._in_vain, charge] if vain else []
        return list(found.values.values())

    def _too_few(self) -> TooFewClients:
        federated = self._config.federated
        there = len(self._members()) if self.units else 0
        return TooFewClients(
            f"federated.least_replies: {federated.least_replies} clients are needed, {there} are "
            f"there after {federated.timeout:g} s; the same command goes on."
        )

    def _wait_for(self, wanted: int) -> int:
        """How many clients there are as soon as there are so many, or when time is up."""
        until = time.monotonic() + self._config.federated.timeout
        seen = 0
        while len(there := self._members()) < wanted and time.monotonic() < until:
            if len(there) > seen:
                seen = len(there)
                self._progress.waiting(seen, wanted)
            time.sleep(_LOOK)
            if self.units:
                self._meet()
        return len(there)

    def _members(self) -> list[int]:
        """Clients that are there; once it is known who holds something, of those only."""
        there = self._clients.ids()
        return [client for client in there if client in self.units] if self.units else there

    def _meet(self) -> bool:
        """Ask those what they hold who were not there before; a client that restarts is new.

        Returns:
            Whether some of them had gone when they were asked.
        """
        new = [
            client
            for client in self._clients.ids()
            if client not in self.units and client not in self._strangers
        ]
        if not new:
            return False
        federated = self._config.federated
        units, faults, gone = describe(
            self._clients, new, self._config, self.run, seconds=federated.timeout
        )
        self.units |= units
        self._strangers |= {client for client, _ in faults}
        for client, words in faults:
            self._progress.fault(f"client {client} {words}.")
        there = len(self._members())
        if self.run and units and there > federated.clients:
            # Its units have the ε of the plan like all others. Who they were is not known: it may
            # be a client that is back, while the SuperLink has not noticed that it was away.
            self._progress.fault(
                f"{there} clients are there, and federated.clients is {federated.clients}; all "
                "take part, and the run's number of units stays as it is."
            )
        return bool(gone)
