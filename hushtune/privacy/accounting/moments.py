"""What moments tell before any distribution is computed: a bound on ε, and a grid for the rest.

Moments come from losses that follow the shape of each pair (`losses.moments_of`), a few thousand
values whatever the plan.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import optimize

from hushtune.privacy.accounting.tilted import Part, Window

# Moment orders that are looked at.
_ORDERS = np.geomspace(1e-4, 1e7, 81)
# How far from the tilt, as a fraction of it, orders for Chernoff's bounds on tilted sums are.
_DISTANCES = np.geomspace(0.01, 100.0, 25)
# Fraction of δ that sums above the window may have, and of the tilted mass outside it.
_TAIL_SHARE = 1e-6
# Fraction of the allowed excess that rounding low losses up to a floor may take.
_FLOOR_SHARE = 0.01


@dataclass(frozen=True)
class Grid:
    """How to add losses up.

    Attributes:
        interval: distance between losses.
        lowest: lowest sum in the window.
        highest: highest sum in the window.
        span: largest distance between losses of one step, with losses under the floor at it.
        floors: for each part, to what low losses are rounded up.
        order: the tilt.
        tail_order: the order for Chernoff's bound on what is above the window.
    """

    interval: float
    lowest: float
    highest: float
    span: float
    floors: tuple[float, ...]
    order: float
    tail_order: float

    @property
    def points(self) -> float:
        """About how many losses have to be kept apart."""
        return max(self.highest - self.lowest, self.span) / self.interval

    @property
    def window(self) -> Window:
        first = math.floor(self.lowest / self.interval)
        needed = math.ceil(self.highest / self.interval) - first + 2
        return Window(self.interval, first, 2 ** max(math.ceil(math.log2(needed)), 4))

    def coarsened(self, points: int) -> "Grid":
        """With at most so many points."""
        return self.refined(max(1.0, self.points / points))

    def refined(self, factor: float) -> "Grid":
        """With the interval multiplied by a factor."""
        return replace(self, interval=self.interval * factor)

    def from_zero(self) -> "Grid":
        """With a window that reaches down to 0."""
        return replace(self, lowest=min(self.lowest, 0.0) - self.interval)


@dataclass(frozen=True)
class Moments:
    """Moments of the sum of all losses of all parts."""

    parts: Sequence[Part]

    def cumulant(self, order: float) -> float:
        """log E[e^(order·sum); sum finite]."""
        return float(self._cumulants_at(np.array(order)))

    def renyi_epsilon(self, order: float, delta: float) -> float:
        """The ε that the moment of one order bounds; perhaps negative, if even less holds.

        For θ > 0, δ(ε) is at most E[e^(θ(sum − ε))]·θ^θ/(1 + θ)^(1 + θ), which is the conversion
        of Canonne, Kamath and Steinke 2020 (Proposition 12) at Rényi order 1 + θ.
        """
        if delta <= self._infinite:
            return math.inf
        return float(self._renyi(np.array(order), np.array(self.cumulant(order)), delta))

    def best_order(self, delta: float) -> float:
        """The order of the smallest such ε. It tilts the mean of the sum to above that ε."""
        if delta <= self._infinite:
            return 1.0
        return self._least(lambda orders, cumulants: self._renyi(orders, cumulants, delta))

    def saddle_order(self, epsilon: float) -> float:
        """The order that tilts the mean of the sum to ε: that of Chernoff's bound."""
        return self._least(lambda orders, cumulants: cumulants - orders * epsilon)

    def grid(self, order: float, delta: float, allowed: float) -> Grid:
        """A grid for the tilt `order` that raises ε by about `allowed`."""
        cumulant = self.cumulant(order)
        log_share = math.log(_TAIL_SHARE)
        ends = (self._cumulants - math.log(delta) - log_share) / _ORDERS
        best = int(np.argmin(ends))
        # Tilted mass outside is as little, so that none of note comes back around the window.
        distance = order * _DISTANCES
        lowest = (log_share + cumulant - self._cumulants_at(order - distance)) / distance
        highest = (self._cumulants_at(order + distance) - cumulant - log_share) / distance
        floors = tuple(self._floor(part, order, allowed) for part in self.parts)
        return Grid(
            interval=self._interval(order, allowed),
            lowest=float(lowest.max()),
            highest=max(float(highest.min()), float(ends[best])),
            span=max(
                float(part.losses.values[-1]) - floor
                for part, floor in zip(self.parts, floors, strict=True)
            ),
            floors=floors,
            order=order,
            tail_order=float(_ORDERS[best]),
        )

    def _cumulants_at(self, orders: np.ndarray) -> np.ndarray:
        return np.sum([part.steps * part.losses.log_moment(orders) for part in self.parts], axis=0)

    @cached_property
    def _cumulants(self) -> np.ndarray:
        return self._cumulants_at(_ORDERS)

    @cached_property
    def _infinite(self) -> float:
        return -math.expm1(
            sum(part.steps * math.log1p(-part.losses.infinite) for part in self.parts)
        )

    def _renyi(self, orders: np.ndarray, cumulants: np.ndarray, delta: float) -> np.ndarray:
        conversion = orders * np.log(orders) - (1 + orders) * np.log1p(orders)
        return (cumulants + conversion - math.log(delta - self._infinite)) / orders

    def _least(self, bound: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        best = int(np.argmin(bound(_ORDERS, self._cumulants)))
        best = min(max(best, 1), _ORDERS.size - 2)

        def at(log_order: float) -> float:
            order = np.exp(log_order)
            return float(bound(order, self._cumulants_at(order)))

        around = np.log(_ORDERS[[best - 1, best + 1]])
        found = optimize.minimize_scalar(at, bounds=around, method="bounded")
        return math.exp(found.x)

    def _tilted(self, part: Part, order: float) -> np.ndarray:
        return part.losses.tilted(order, float(part.losses.log_moment(np.array(order))))

    def _floor(self, part: Part, order: float, allowed: float) -> float:
        """The highest loss to which all lower ones may be rounded up."""
        losses = part.losses
        log_moment = float(losses.log_moment(np.array(order)))
        with np.errstate(divide="ignore"):
            log_raised = np.log(np.cumsum(losses.masses)) + order * losses.values - log_moment
        most = math.log(_FLOOR_SHARE * allowed * order / part.steps)
        return float(losses.values[max(int(np.searchsorted(log_raised, most)) - 1, 0)])

    def _interval(self, order: float, allowed: float) -> float:
        """The interval that raises ε by about `allowed`.

        Sharing a loss out between the ends of its cell raises the cumulant at order θ by about
        θ(θ + 1)/2 times the product of its distances from the two ends: on average interval²/6,
        and at most |loss|·interval, since 0 is on the grid.
        """
        sizes = [np.abs(part.losses.values) for part in self.parts]
        weights = [self._tilted(part, order) * part.steps * (order + 1) / 2 for part in self.parts]

        def log_excess(log_interval: float) -> float:
            interval = math.exp(log_interval)
            raised = sum(
                float(weight @ np.minimum(interval**2 / 6, interval * size))
                for size, weight in zip(sizes, weights, strict=True)
            )
            return math.log(max(raised, 1e-300) / allowed)

        low, high = -60.0, 20.0
        if log_excess(high) <= 0:
            return math.exp(high)
        return math.exp(optimize.root_scalar(log_excess, bracket=(low, high), xtol=1e-6).root)
