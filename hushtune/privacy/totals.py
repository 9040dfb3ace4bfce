"""What all entries of a registry cost together, per data set, unit and adjacency.

Two numbers. The *sum* of all ε, at the sum of all δ, holds whatever was chosen on the way: a run
added because of what the last one showed, other settings, the moment to stop (Rogers, Roth, Ullman
and Vadhan 2016). Less is spent if all entries were fixed beforehand, as for a list of seeds or a
grid of settings: then they are phases of one long run (`accounting.composed_epsilon`).

A guarantee for one unit says something about another only in one direction: whoever protects all
of a user's rows protects each of them. Removing a row is removing the user and adding the user
with one row less, hence group privacy for two. Replacing a row may move it from one user to
another; nothing is said about that. Nor does anything follow for users from entries for rows,
since a user may have any number of them. Where there is no total the reason is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hushtune.privacy.accounting import Phase, Spent, composed_epsilon, group_privacy
from hushtune.privacy.registry import Entry

ADJACENCIES = ("add-or-remove-one", "replace-one")
EXAMPLE = "example"


@dataclass(frozen=True)
class Total:
    """ε of all entries of a data set for one unit.

    Attributes:
        data, unit, adjacency: the terms.
        entries: how many were added up.
        epsilon, delta: the sum; ε is None if nothing can be guaranteed.
        epsilon_if_fixed_beforehand: ε at the same δ if no entry was chosen because of another.
        because: why there is no total.
    """

    data: str
    unit: str
    adjacency: str
    entries: int
    epsilon: float | None = None
    delta: float = 0.0
    epsilon_if_fixed_beforehand: float | None = None
    because: str = ""


def totals(entries: Sequence[Entry]) -> list[Total]:
    """The totals of each data set, for each unit and adjacency that occurs in its entries."""
    found = []
    for data in dict.fromkeys(entry.data for entry in entries):
        here = [entry for entry in entries if entry.data == data]
        for unit in dict.fromkeys(entry.unit for entry in here):
            occurring = {entry.adjacency for entry in here if entry.unit == unit}
            for adjacency in ADJACENCIES:
                if adjacency in occurring:
                    found.append(_total(data, here, unit, adjacency))
    return found


class _Unbounded(Exception):
    """An entry that guarantees nothing for the unit in question."""


def _total(data: str, entries: Sequence[Entry], unit: str, adjacency: str) -> Total:
    try:
        parts = [_part(entry, unit, adjacency) for entry in entries]
    except _Unbounded as reason:
        return Total(data, unit, adjacency, len(entries), because=str(reason))
    alone = [
        part
        if isinstance(part, Spent)
        else Spent(composed_epsilon([part], delta=entry.delta, adjacency=adjacency), entry.delta)
        for entry, part in zip(entries, parts, strict=True)
    ]
    epsilon = math.fsum(part.epsilon for part in alone)
    delta = math.fsum(part.delta for part in alone)
    if delta >= 1:
        reason = "δ of the entries adds up to 1"
        return Total(data, unit, adjacency, len(entries), because=reason)
    beforehand = min(epsilon, composed_epsilon(parts, delta=delta, adjacency=adjacency))
    return Total(data, unit, adjacency, len(entries), epsilon, delta, beforehand)


def _part(entry: Entry, unit: str, adjacency: str) -> Phase | Spent:
    name = f"{entry.what} ({entry.where})" if entry.where else entry.what
    if entry.epsilon == math.inf:
        raise _Unbounded(f"{name} hides nothing")
    if entry.unit == unit:
        if entry.plan is not None and entry.plan.search is None:
            return entry.plan.phase  # the same steps, under whichever adjacency is asked for
        if entry.adjacency == adjacency:
            return Spent(entry.epsilon, entry.delta)
        if entry.adjacency == "replace-one":
            raise _Unbounded(f"{name} is replace-one")
        return Spent(*group_privacy(entry.epsilon, entry.delta, 2))
    if unit != EXAMPLE:
        raise _Unbounded(f"{name} protects one {entry.unit}, of which a {unit} may have many")
    if (entry.adjacency, adjacency) != ("add-or-remove-one", "add-or-remove-one"):
        raise _Unbounded(f"{name} protects one {entry.unit}, and a row may change its {entry.unit}")
    return Spent(*group_privacy(entry.epsilon, entry.delta, 2))
