"""How far one unit can move the sum: a search for the worst pair of neighbouring data sets.

Noise is left out, so that what is released is the exact integer sum and every comparison is one of
integers. The data sets are made up.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hushtune.privacy.audit.findings import Finding
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.plan import PrivacyPlan

# Vectors drawn at random in addition to those made by hand, and units in a background.
_RANDOM_UNITS = 100
_CROWD = 64

#: Rows and the unit of each, as `Boundary.release` takes them.
Sample = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Worst:
    """The pair that differs most: some units, and one more.

    Attributes:
        name: what the unit's rows are, and who else is there.
        rows: (rows, K) float64 of the unit.
        others: (units, K) float64, one row each, of those who take part in any case.
        shift: the K integers by which the sums differ.
        ratio: the length of that difference, in units of the plan's sensitivity.
    """

    name: str
    rows: np.ndarray
    others: np.ndarray
    shift: tuple[int, ...]
    ratio: float

    @property
    def without(self) -> Sample:
        """What the boundary takes if the unit is not there."""
        return self.others, np.arange(len(self.others))

    @property
    def there(self) -> Sample:
        """What the boundary takes if the unit is there."""
        own = np.zeros(len(self.rows), dtype=int)
        units = np.concatenate([own, 1 + np.arange(len(self.others))])
        return np.concatenate([self.rows, self.others]), units

    @property
    def most_moved(self) -> np.ndarray:
        """Indices of the K directions, those that the unit moves most first."""
        return np.argsort([-abs(value) for value in self.shift], kind="stable")


def search(plan: PrivacyPlan) -> tuple[Worst, list[Finding]]:
    """The worst neighbours found, with findings on the clip and on the sum."""
    boundary = Boundary(plan, add_noise=list)
    nothing = np.zeros((1, plan.directions))
    worst, longest = Worst("nothing", nothing, nothing[:0], (0,) * plan.directions, 0.0), (0, 0)
    pairs, coupled, refused = 0, "", ""
    for name, rows in _units(plan):
        try:
            found = [_pair(boundary, name, rows, *background) for background in _others(plan)]
        except Exception as error:
            refused = f"{name}: {type(error).__name__}"
            continue
        pairs += len(found)
        if len({pair.shift for pair in found}) > 1:
            coupled = f"{name}: what it adds depends on the others"
        for pair in found:
            # Of equal lengths the one in the fewest directions is the easiest to attack.
            length = (_length(pair.shift, plan), -sum(map(bool, pair.shift)))
            if length > longest:
                longest, worst = length, pair
    within = longest[0] <= _length((plan.sensitivity,), plan)
    largest = f"largest difference of {pairs} pairs of neighbours {worst.ratio:.9g} Δ, {worst.name}"
    return worst, [
        Finding("sensitivity", within, largest),
        Finding("additivity", not coupled, coupled or "a unit adds the same next to any others"),
        Finding("every input is released", not refused, refused or f"{pairs} pairs"),
        _order(boundary, plan),
    ]


def nobody(plan: PrivacyPlan) -> Sample:
    """An empty sample."""
    return np.empty((0, plan.directions)), np.empty(0, dtype=np.int64)


def crowd(plan: PrivacyPlan) -> Sample:
    """Many units of full length."""
    return np.full((_CROWD, plan.directions), plan.clip_norm), np.arange(_CROWD)


def _pair(
    boundary: Boundary, name: str, rows: np.ndarray, background: str, others: np.ndarray
) -> Worst:
    pair = Worst(f"{name}, next to {background}", rows, others, (), 0.0)
    sums = boundary.release(*pair.there), boundary.release(*pair.without)
    shift = tuple(there - without for there, without in zip(*sums, strict=True))
    ratio = _ratio(_length(shift, boundary.plan), boundary.plan)
    return dataclasses.replace(pair, shift=shift, ratio=ratio)


def _units(plan: PrivacyPlan) -> Iterator[tuple[str, np.ndarray]]:
    """(rows, K) float64 of one unit each; the first has exactly the length of the clip."""
    width, clip = plan.directions, plan.clip_norm
    first = np.eye(1, width) * clip
    yield "C in one direction", first
    yield "−C in one direction", -first
    yield "C in every direction", np.full((1, width), clip)
    yield "1e300 in one direction", first / clip * 1e300
    yield "the largest number everywhere", np.full((1, width), np.finfo(float).max)
    yield "300 rows of C", np.repeat(first, 300, axis=0)
    yield "rows that overflow together", np.full((3, width), 1e308)
    yield "rows in different directions", np.resize(np.eye(width) * clip, (7, width))
    for value in (math.nan, math.inf, -math.inf):
        yield f"{value} and C", np.where(np.arange(width) % 2 == 0, value, clip)[None]
        yield (
            f"a row of {value} among others",
            np.vstack([first, np.full((1, width), value), first]),
        )
    yield "the smallest number", np.full((1, width), 5e-324)
    draw = np.random.default_rng(0)
    for place in range(_RANDOM_UNITS):
        vector = draw.standard_normal((1, width)) * clip * 10.0 ** draw.uniform(-1, 6)
        yield f"random vector {place}", vector


def _others(plan: PrivacyPlan) -> list[tuple[str, np.ndarray]]:
    """(units, K) float64 of one row each: who else takes part."""
    first = np.eye(1, plan.directions) * plan.clip_norm
    return [
        ("nobody", first[:0]),
        ("one of the same kind", first),
        ("many in the same direction", np.repeat(first, _CROWD, axis=0)),
        ("many in the opposite direction", np.repeat(-first, _CROWD, axis=0)),
        ("an outlier of 2^53 C", np.full_like(first, 2.0**53 * plan.clip_norm)),
        ("one that is not finite", np.full_like(first, math.nan)),
    ]


def _order(boundary: Boundary, plan: PrivacyPlan) -> Finding:
    """Units in another order, their rows mixed with those of others."""
    rows, units = (
        np.random.default_rng(1).standard_cauchy((60, plan.directions)),
        np.arange(60) % 20,
    )
    together, reversed_ = np.argsort(units, kind="stable"), np.argsort(-units, kind="stable")
    orders = (np.arange(60), together, reversed_)
    sums = {boundary.release(rows[order] * plan.clip_norm, units[order]) for order in orders}
    return Finding("order", len(sums) == 1, f"{len(orders)} orders of the units, {len(sums)} sum")


def _length(shift: tuple[int, ...], plan: PrivacyPlan) -> int:
    """L1 norm, or the square of the L2 norm; in integers, and not by the plan's own check."""
    if plan.mechanism == "laplace":
        return sum(map(abs, shift))
    return sum(value * value for value in shift)


def _ratio(length: int, plan: PrivacyPlan) -> float:
    return (length if plan.mechanism == "laplace" else math.sqrt(length)) / plan.sensitivity
