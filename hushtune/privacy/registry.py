"""The registry: everything that was ever spent on a data set, in one file, added up.

Each training run is entered before its first charge, with its whole plan, whether or not it is ever
finished: another seed, another setting tried, a folder deleted and trained again are entries of
their own. So is each private evaluation of a registered run. Whatever else was released elsewhere
is entered by hand with its (ε, δ). The key is a name that the data's owner chooses. A hash of the
data would be no key: it changes with every row that is added, and those who were there before stay.

A run's steps are reserved here, a hundredth of the plan at a time, before they are charged in its
ledger. So a run folder that was set back, or copied and trained twice, cannot take more steps than
are planned: whoever comes second finds the steps reserved. What is reserved and was not charged
when a process died is charged when the run goes on, and lost.

The file is a hash chain like the ledger (`hushtune.privacy.chain`), and is made explicitly: a
mistyped path must not begin to count from zero. What never passes the registry, it cannot know.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hushtune.privacy import chain
from hushtune.privacy.chain import ChainError
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.plan import PrivacyPlan, require

_GENESIS = chain.genesis("hushtune registry")

#: What a run of its own ledger may be.
Kind = Literal["training", "evaluation"]

#: A run reserves this share of its steps at a time.
_BLOCKS = 100


class RegistryError(ChainError):
    """A registry that cannot be trusted or used, or that refuses a run."""


@dataclass(frozen=True)
class Entry:
    """One spending.

    Attributes:
        data: the data set's name.
        what: "training", "evaluation", or what the person who entered it called it.
        where: the run folder, an evaluation's ledger, or a note.
        unit, adjacency: of its own guarantee.
        plan: of a training run with privacy or of an evaluation, else None.
        spent: (ε, δ) of anything else; ε is infinite for training without privacy.
        run: the identity of a training run or of an evaluation, else "".
    """

    data: str
    what: str
    where: str
    unit: str
    adjacency: str
    plan: PrivacyPlan | None = None
    spent: tuple[float, float] = (math.inf, 0.0)
    run: str = ""

    @property
    def epsilon(self) -> float:
        """ε of this entry alone."""
        return self.spent[0] if self.plan is None else self.plan.epsilon()

    @property
    def delta(self) -> float:
        """δ of this entry alone."""
        return self.spent[1] if self.plan is None else self.plan.delta


@dataclass
class Contents:
    """What a registry says.

    Attributes:
        entries: in order.
        reserved: steps that each run may have taken so far.
        head: hash of the last whole line; kept elsewhere, it shows that no line was cut off.
        torn: bytes of a last line that was not written completely, if any.
    """

    entries: list[Entry] = field(default_factory=list)
    reserved: dict[str, int] = field(default_factory=dict)
    head: str = _GENESIS
    torn: bytes = b""


def create(path: str | os.PathLike[str]) -> None:
    """Make an empty registry.

    Raises:
        FileExistsError: if there is one.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    line, _ = chain.make_line(_GENESIS, {"registry": {"format": 1}})
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        chain.make_entry_durable(Path(path))
        chain.append(file, line, path)
    finally:
        os.close(file)


def read(path: str | os.PathLike[str]) -> Contents:
    """Read and verify a registry.

    Raises:
        RegistryError: for an altered, missing, reordered or malformed line, with its number.
        OSError: no such file.
    """
    *lines, torn = Path(path).read_bytes().split(b"\n")
    if not lines:
        raise RegistryError(f"{path}: not a registry.")
    contents = Contents(torn=torn)
    for number, line in enumerate(lines, start=1):
        try:
            content, contents.head = chain.read_line(contents.head, line)
            _accept(contents, content, first=number == 1)
        except ChainError as reason:
            raise RegistryError(f"{path}, line {number}: {reason}") from None
        except (KeyError, TypeError, ValueError):
            raise RegistryError(f"{path}, line {number}: not what may stand here.") from None
    try:
        # A line that was cut short is none; one with another byte for its newline is one.
        chain.read_line(contents.head, torn[:-1])
    except ChainError:
        return contents
    raise RegistryError(f"{path}, line {len(lines) + 1}: its end changed.")


class RegisteredRun:
    """A run whose steps are reserved before they are charged.

    Args:
        path: the registry.
        data: the data set's name.
        where: the run folder.
        ledger: the run's open ledger. Steps that are reserved and not charged are charged now.
        kind: what the ledger is of.

    Raises:
        RegistryError: if there is no such registry, the run is known with another plan or data set,
            has taken steps outside the registry, or its ledger was set back.
        OSError: if the entry could not be made durable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        data: str,
        where: str,
        ledger: Ledger,
        kind: Kind = "training",
    ) -> None:
        self._path = path
        self._run = ledger.header["run"]
        self._steps = ledger.header["steps"]
        self._block = max(1, self._steps // _BLOCKS)
        entry: dict[str, Any] = {"data": data, "run": self._run, "where": where}
        if ledger.header["private"]:
            entry["plan"] = ledger.header["plan"]
        with _opened(path) as (contents, append):
            known = [each for each in contents.entries if each.run == self._run]
            if not known:
                append({kind: entry})
            elif known[0] != _run(kind, **entry | {"where": known[0].where}):
                raise RegistryError(f"{path}: knows this run with another plan or data set.")
        self._reserved = contents.reserved.get(self._run, 0)
        if ledger.header["private"]:
            self._catch_up(ledger, where)

    def cover(self, step: int) -> None:
        """Make sure that step `step`, the next one to be charged, is reserved for this process.

        Raises:
            RegistryError: if somebody else has reserved it.
            OSError: if the reservation could not be made durable.
        """
        if step < self._reserved:
            return
        until = min(step + self._block, self._steps)
        with _opened(self._path) as (contents, append):
            if contents.reserved.get(self._run, 0) != step:
                raise RegistryError(
                    f"{self._path}: a copy of this run has taken step {step} already."
                )
            append({"reserved": {"run": self._run, "until": until}})
        self._reserved = until

    def _catch_up(self, ledger: Ledger, where: str) -> None:
        missing = self._reserved - ledger.charges
        if missing < 0:
            raise RegistryError(
                f"{self._path}: {where} has charged {ledger.charges} steps, of which the registry "
                f"knows {self._reserved}; a run has to be registered from its first step on."
            )
        if missing > self._block:
            raise RegistryError(
                f"{self._path}: knows of {self._reserved} steps of this run, its ledger in {where} "
                f"of {ledger.charges}: it was set back or is a copy. Go on with the ledger that "
                "has them all."
            )
        for _ in range(missing):
            ledger.charge()


def enter_spending(
    path: str | os.PathLike[str],
    *,
    data: str,
    what: str,
    epsilon: float,
    delta: float,
    unit: str,
    adjacency: str,
    note: str,
) -> None:
    """Enter something that was released elsewhere, by its (ε, δ).

    Raises:
        ValueError: a value that is out of range.
        RegistryError: if there is no such registry or it does not verify.
        OSError: if the entry could not be made durable.
    """
    values = {
        "data": data,
        "what": what,
        "epsilon": epsilon,
        "delta": delta,
        "unit": unit,
        "adjacency": adjacency,
        "note": note,
    }
    _require_spending(values)
    with _opened(path) as (_, append):
        append({"spending": values})


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Contents, Any]]:
    """Contents and a function that appends a line durably, under an exclusive lock."""
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:
        raise RegistryError(
            f"{path}: no such registry; `hushtune privacy --registry {path} --new` makes one."
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # held for the moment of an entry only
        contents = read(path)
        # A line is durable before what it is about begins: a torn one is about nothing.
        os.ftruncate(file, os.fstat(file).st_size - len(contents.torn))

        def append(content: dict[str, Any]) -> None:
            line, contents.head = chain.make_line(contents.head, content)
            chain.append(file, line, path)

        yield contents, append
    finally:
        os.close(file)


def _accept(contents: Contents, content: dict[str, Any], *, first: bool) -> None:
    match content:
        case {"registry": {"format": 1}} if first:
            pass
        case {"training": dict(values)} if not first:
            contents.entries.append(_run("training", **values))
        case {"evaluation": dict(values)} if not first:
            contents.entries.append(_run("evaluation", **values))
        case {"spending": dict(values)} if not first:
            _require_spending(values)
            contents.entries.append(_spending(**values))
        case {"reserved": {"run": str(run), "until": int(until)}} if not first:
            contents.reserved[run] = max(until, contents.reserved.get(run, 0))
        case _:
            raise ValueError


def _run(kind: Kind, *, data: str, run: str, where: str, plan: Any = None) -> Entry:
    if plan is None:
        what = f"{kind} without privacy"
        return Entry(data, what, where, "example", "add-or-remove-one", run=run)
    bound = PrivacyPlan.from_json(plan)
    return Entry(data, kind, where, bound.unit, bound.adjacency, bound, run=run)


def _spending(
    *, data: str, what: str, note: str, unit: str, adjacency: str, epsilon: float, delta: float
) -> Entry:
    return Entry(data, what, note, unit, adjacency, spent=(epsilon, delta))


def _require_spending(values: dict[str, Any]) -> None:
    for name in ("data", "what", "unit"):
        value = values[name]
        require(isinstance(value, str) and bool(value), name, value, "a name")
    epsilon, delta, adjacency = values["epsilon"], values["delta"], values["adjacency"]
    require(0 <= epsilon < math.inf, "epsilon", epsilon, "at least 0 and finite")
    require(0 <= delta < 1, "delta", delta, "at least 0 and below 1")
    known = ("add-or-remove-one", "replace-one")
    require(adjacency in known, "adjacency", adjacency, " or ".join(known))
