"""ε after many steps, alike or not: privacy loss distributions on a grid that is fine enough.

Each kind of step is put on one grid of losses, all are added up (`tilted`), and ε is read off.
Moments of the same losses, which cost little, choose everything else beforehand: the tilt, the
window of sums, and the interval of the grid. They also bound ε on their own (Rényi), by some 10 %
above what the distribution gives. Nothing that they choose can make ε too small, only too large.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hushtune.privacy.accounting.losses import lattice_of, moments_of
from hushtune.privacy.accounting.moments import Grid, Moments
from hushtune.privacy.accounting.pairs import Pair
from hushtune.privacy.accounting.tilted import Part, TiltedSum, add_up

# The grid is fine enough when halving its interval moves ε by less than the first fraction; from
# where time is felt, by less than the second.
_FINE, _LENIENT = 0.001, 0.004
_CHEAP_POINTS = 2**17
# By how much moments are to expect the first grid, and that of a look, to raise ε.
_FIRST_EXCESS = 0.003
# Below this ε the grid need not become finer: nobody decides by a smaller one.
_SMALL_EPSILON = 1e-3
# Beyond this many losses a finer grid is not tried: what has been found is sound, if not tight.
_MOST_POINTS = 2**21
# Up to this many, a window that is wider than need be does no harm.
_COMFORTABLE_POINTS = 2**15
# Fraction of δ that all steps together may round up to an infinite loss.
_TAIL_SHARE = 1e-7
# A distribution that was made for one δ serves for others down to this fraction of it.
_NEAR = 0.9
# What rounding can move a loss by: this times the loss plus −log q, for q down to e^−64.
_LOSS_ROUNDING = 2.0**-49
_MOST_LOG_ODDS = 64.0


@dataclass(frozen=True)
class Repeated:
    """Independent steps with the same dominating pair."""

    pair: Pair
    steps: int


class PrivacyLossCurve:
    """ε as a function of δ for independent releases.

    Args:
        repeated: the dominating pairs of all steps.
        delta: about the δ for which ε will be asked.
    """

    def __init__(self, repeated: Sequence[Repeated], delta: float) -> None:
        self._repeated = tuple(repeated)
        self._delta = delta

    def epsilon(self, delta: float) -> float:
        """The smallest ε found that holds with `delta`; never below the smallest there is.

        The grid is halved until that moves ε by less than 0.1 %, or 0.4 % where it is large, and to
        2^21 points at most; infinity if no ε holds with `delta`.
        """
        return self._epsilon(delta, rough=False)

    def rough_epsilon(self, delta: float) -> float:
        """ε on the first grid alone: quick, sound, typically half a percent above `epsilon`."""
        return self._epsilon(delta, rough=True)

    @cached_property
    def _directions(self) -> list["_Direction"]:
        symmetric = all(repeated.pair.symmetric for repeated in self._repeated)
        return [
            _Direction(self._repeated, direction, self._delta)
            for direction in range(1 if symmetric else 2)
        ]

    def _epsilon(self, delta: float, rough: bool) -> float:
        if not _NEAR * self._delta <= delta <= self._delta / _NEAR:
            return PrivacyLossCurve(self._repeated, delta)._epsilon(delta, rough)
        found = 0.0
        for direction in self._directions:
            # Adding an example often reveals less than removing one by any measure.
            if direction.renyi_epsilon(delta) > found:
                found = max(found, direction.epsilon(delta, rough))
        return found


class _Direction:
    """All losses for one of the two ways to go between neighbouring data sets.

    Args:
        repeated: the dominating pairs of all steps.
        direction: 0 for losses under the upper distributions, 1 for those under the lower ones.
        delta: about the δ for which ε will be asked.
    """

    def __init__(self, repeated: Sequence[Repeated], direction: int, delta: float) -> None:
        self._repeated = repeated
        self._direction = direction
        self._delta = delta
        steps = sum(each.steps for each in repeated)
        self._log_tail = math.log(_TAIL_SHARE * delta / steps)
        self._moments = Moments(
            [
                Part(moments_of(each.pair, direction, self._log_tail), each.steps)
                for each in repeated
            ]
        )

    def epsilon(self, delta: float, rough: bool) -> float:
        """The smaller of the two bounds: from the distribution, and from moments."""
        if math.isinf(self.renyi_epsilon(delta)):
            return math.inf
        distribution = self._first if rough else self._fine
        from_distribution = distribution.epsilon(delta) + self._rounding
        return min(self.renyi_epsilon(delta), from_distribution)

    def renyi_epsilon(self, delta: float) -> float:
        """An ε from moments alone: looser, often by some 10 %, for rare large losses by far."""
        bound = self._moments.renyi_epsilon(self._renyi_order, delta)
        return max(bound + 1e-9 * abs(bound) + self._rounding, 0.0)

    @cached_property
    def _rounding(self) -> float:
        return _LOSS_ROUNDING * sum(
            part.steps * (np.abs(part.losses.values[[0, -1]]).max() + _MOST_LOG_ODDS)
            for part in self._moments.parts
        )

    @cached_property
    def _renyi_order(self) -> float:
        return self._moments.best_order(self._delta)

    @cached_property
    def _first_grid(self) -> Grid:
        order = self._renyi_order
        about = max(self._moments.renyi_epsilon(order, self._delta), 0.0)
        while True:
            allowed = _FIRST_EXCESS * max(about, _SMALL_EPSILON)
            grid = self._moments.grid(order, self._delta, allowed)
            if grid.points <= _COMFORTABLE_POINTS:
                return grid
            # Where large losses are rare, Rényi's order tilts the sum far beyond ε, and the window
            # that then is needed is enormous. A coarse look tells where ε is.
            look = self._on(grid.coarsened(_COMFORTABLE_POINTS)).epsilon(self._delta)
            if not look < 0.9 * about:
                return grid.coarsened(_MOST_POINTS // 2)
            about, order = look, self._moments.saddle_order(look)

    @cached_property
    def _first(self) -> TiltedSum:
        return self._on(self._first_grid)

    @cached_property
    def _fine(self) -> TiltedSum:
        grid, result = self._first_grid, self._first
        found = result.epsilon(self._delta)
        while found > 0:
            if found <= result.window.first * result.window.interval:
                # ε is below what the tilt was made for: show all of it.
                grid = grid.from_zero()
            grid = grid.refined(0.5)
            if grid.points > _MOST_POINTS:
                break
            result = self._on(grid)
            finer = result.epsilon(self._delta)
            share = _FINE if 2 * grid.points <= _CHEAP_POINTS else _LENIENT
            settled = found - finer <= share * max(finer, _SMALL_EPSILON)
            found = finer
            if settled:
                break
        return result

    def _on(self, grid: Grid) -> TiltedSum:
        parts = [
            Part(
                lattice_of(each.pair, self._direction, self._log_tail, grid.interval, floor),
                each.steps,
            )
            for each, floor in zip(self._repeated, grid.floors, strict=True)
        ]
        return add_up(parts, grid.window, grid.order, grid.tail_order)
