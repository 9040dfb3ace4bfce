"""A client: the owner's data, what its owner allows, and answers to a server's questions.

Everything the client computes of a round follows from the ledger: model, settings, directions and
all moves so far. It recomputes ε of the plan and refuses a run that its owner does not allow,
before it adds to a round. What leaves it is the number of its units as its owner agreed to count
them, K integers a round, and words that name public things only; whatever else goes wrong is said
on its own terminal.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hushtune import opening
from hushtune.config import Config, ConfigError, from_values
from hushtune.config.federated_checks import check_federated
from hushtune.federated.agreement import Agreement, run_of, terms_of
from hushtune.federated.messages import DESCRIBE, REFUSED, ROUND, Refusal, unpacked
from hushtune.federated.usable import slopes_of_usable
from hushtune.opening import RunSession, RunUpdate
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.failing import panics_as_errors
from hushtune.privacy.ledger_copy import Behind, Kept, LedgerCopy
from hushtune.privacy.record import LedgerError
from hushtune.privacy.rounds import ClientShare, RoundTerms, packed_share
from hushtune.privacy.steps import Slopes
from hushtune.tasks.data import LabelledText


@dataclass(frozen=True)
class Owner:
    """What the owner of some data gives to a run, and how far.

    Attributes:
        name: tells apart the owners that one process works for.
        read: the data, from the run's configuration.
        folder: for the copy of the ledger.
        model: where the base model is, if not where the server says.
        epsilon: the most ε that a run may cost; none: what the server plans.
        delta: the most δ.
        trusts_server: whether the server may see sums without noise.
        agreed: a configuration whose ways to read the data, and whose unit, are agreed to; none:
            those of the first that a server asks for.
    """

    name: str
    read: Callable[[Config], LabelledText]
    folder: Path
    model: str | None = None
    epsilon: float | None = None
    delta: float = 1e-5
    trusts_server: bool = True
    agreed: Config | None = None


@dataclass
class AtWork:
    """What a process has in memory of the run that it works for, and of its owners' data.

    Attributes:
        header: of the run's ledger.
        session: of the run.
        update: moves the session's parameters.
        applied: how many of the ledger's charges the parameters have behind them.
        data: by owner, with what was agreed on reading it.
        slopes: by owner.
        copies: of the ledger, by owner.
    """

    header: dict[str, Any] = field(default_factory=dict)
    session: RunSession | None = None
    update: RunUpdate | None = None
    applied: int = 0
    data: dict[str, tuple[Config, LabelledText]] = field(default_factory=dict)
    slopes: dict[str, Slopes] = field(default_factory=dict)
    copies: dict[str, Kept] = field(default_factory=dict)


class Client:
    """Answers for one owner.

    Args:
        owner: whose data it is.
        at_work: what the process keeps from answer to answer; may be shared between owners, as in a
            simulation, since the run is the same for all.
    """

    def __init__(self, owner: Owner, at_work: AtWork) -> None:
        self._owner = owner
        self._work = at_work
        self._agreement = Agreement(owner.folder, owner.agreed)

    def answer(self, kind: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a question of a server; a refusal if it cannot be given."""
        try:
            with panics_as_errors():
                if kind == DESCRIBE:
                    return {"units": self._units(question)}
                if kind == ROUND:
                    return self._round(question["first"], question["lines"])
                return {REFUSED: "was asked for something that it does not know"}
        except Behind as behind:
            return {"known": behind.known}
        except Refusal as refusal:
            return {REFUSED: " ".join(str(refusal).split())}
        except Exception as error:
            return failed_answer(error)

    def _units(self, question: Mapping[str, Any]) -> int:
        config = _accepted(json.loads(question["config"]))
        delta = config.privacy.delta
        self._require_trusted(config.federated.trust)
        self._require_affordable(config.privacy.epsilon, None if delta == "auto" else delta)
        self._agreement.check(config, question.get("run", ""))
        self._agreement.require(config)
        units = self._data(config).units
        # Where all that a client holds is one unit, how much that is, is what is protected.
        return 1 if config.federated.by_client else units

    def _round(self, first: int, lines: bytes) -> dict[str, Any]:
        copies, name = self._work.copies, self._owner.name
        with LedgerCopy(self._owner.folder / "ledger.jsonl", copies.pop(name, None)) as copy:
            charge = self._followed(copy, first, lines)
            session = self._at(copy)
            copies[name] = copy.keep()
            header = session.header
            plan, terms = PrivacyPlan.from_json(header["plan"]), RoundTerms.of(header)
            data = self._data(session.config)
            slopes = self._slopes(session, data)
            share = ClientShare(plan, terms, units=data.units, failed=_tell)
            self._agreement.answer(charge)
            return {"charge": charge, "values": packed_share(share.of_round(slopes, charge), plan)}

    def _followed(self, copy: LedgerCopy, first: int, lines: bytes) -> int:
        """The charge that is asked for, once the copy has it; what is refused leaves no trace."""
        try:
            told = unpacked(lines)
            header = copy.header_in(first, told)
            config = self._require_allowed(header)
            run = run_of(header)
            self._agreement.check(config, run)
            charge = copy.follow(first, told)
        except Behind:
            raise
        except LedgerError as refused:
            # It names lines of the ledger, which the server knows.
            raise Refusal(str(refused)) from None
        # Not before: what is refused leaves no trace.
        self._agreement.require(config, run)
        return charge

    def _require_trusted(self, trust: str) -> None:
        if trust == "server" and not self._owner.trusts_server:
            raise Refusal("its owner does not trust the server with sums without noise.")

    def _require_affordable(self, epsilon: float | None, delta: float | None) -> None:
        """Refuse what costs more; None is not settled yet. What is no number is not allowed."""
        owner = self._owner
        if delta is not None and not delta <= owner.delta:
            raise Refusal(f"the run's δ is {delta:.4g}, its owner allows {owner.delta:.4g}.")
        if owner.epsilon is not None and epsilon is not None and not epsilon <= owner.epsilon:
            raise Refusal(f"the run's ε is {epsilon:.4g}, its owner allows {owner.epsilon}.")

    def _require_allowed(self, header: Mapping[str, Any]) -> Config:
        """The run's configuration, unless it asks for what the owner does not allow.

        Raises:
            Refusal: saying what was asked for and what is allowed.
        """
        if header["private"] is not True:
            raise Refusal("the run has no privacy.")
        config = _accepted(header["config"])
        plan, terms = PrivacyPlan.from_json(dict(header["plan"])), RoundTerms.of(header)
        if (plan.unit, plan.adjacency) != (config.protected, config.privacy.adjacency) or (
            terms.by_client and plan.sampling_probability != 1
        ):
            raise Refusal("the run's ε is not that of what its clients would send.")
        if plan.search is not None:
            raise Refusal("the run's ε is that of a search, of which clients know nothing.")
        if not _are_shapes(header["shapes"], config.data.max_length):
            # Else a server would choose which texts are too long.
            raise Refusal("the run's shapes are not those of its data.max_length.")
        self._require_trusted(terms.trust)
        self._require_affordable(plan.epsilon(), plan.delta)
        return config

    def _at(self, copy: LedgerCopy) -> RunSession:
        """The session with the parameters of the copy's last round."""
        work, header = self._work, copy.record.header
        begun = work.session is not None and work.header == header
        # The last charge's release is yet to come.
        behind = copy.record.charges - 1
        if not begun or work.applied > behind:
            session = opening.resume(header, model=self._owner.model)
            session.require_isolation()
            work.header, work.session = header, session
            work.update, work.applied = session.update(), 0
            work.slopes = {}
        assert work.session is not None
        assert work.update is not None
        if work.applied < copy.held_from:
            copy.read()
        record = copy.record
        for charge in range(work.applied, behind):
            if charge in record.releases:
                work.update.apply(charge, record.releases[charge])
            work.applied = charge + 1
        return work.session

    def _data(self, config: Config) -> LabelledText:
        name, terms = self._owner.name, terms_of(config)
        if name not in self._work.data or self._work.data[name][0] != terms:
            self._work.data[name] = terms, self._owner.read(config)
        return self._work.data[name][1]

    def _slopes(self, session: RunSession, data: LabelledText) -> Slopes:
        name, update = self._owner.name, self._work.update
        assert update is not None
        if name not in self._work.slopes:
            self._work.slopes[name] = slopes_of_usable(session, data, update, failed=_tell)
        return self._work.slopes[name]


def _accepted(values: dict[str, Any]) -> Config:
    """A configuration that a server sends; raises Refusal naming what cannot be."""
    try:
        config = from_values(values, source="the server")
        # Whether names on the server's machine mean the same here is for nobody to ask.
        check_federated(
            dataclasses.replace(
                config, data=dataclasses.replace(config.data, train="theirs", eval=None)
            )
        )
    except ConfigError as refused:
        raise Refusal(str(refused)) from None
    return config


def _are_shapes(shapes: list[Mapping[str, Any]], longest: int) -> bool:
    """Whether every text up to so many tokens has its micro-batches."""
    whole = all(type(value) is int and value > 0 for shape in shapes for value in shape.values())
    lengths = [shape["length"] for shape in shapes]
    return whole and lengths == sorted({*lengths}) and lengths[-1:] == [longest]


def failed_answer(error: Exception) -> dict[str, Any]:
    """The answer where something fails whose words may be about private text, or this machine."""
    _tell(error)
    return {REFUSED: "has a problem; its own terminal says which"}


def _tell(error: Exception) -> None:
    """Say on the owner's own terminal what nobody else may know."""
    print(f"hushtune: {error!r}", file=sys.stderr, flush=True)
