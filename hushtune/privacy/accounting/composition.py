"""ε after T steps, from a privacy loss distribution on a grid that is fine enough.

A single step is put on the grid by Connect-the-Dots (Doroshenko, Ghazi, Kamath, Kumar and
Manurangsi 2022, arXiv 2207.04380), which never under-reports and whose excess shrinks with the
square of the interval; dp-accounting composes the steps and reads off ε. The grid is built here,
not by dp-accounting's constructors, because they visit its points one at a time and obtain masses
as second differences of δ(ε), whose rounding errors reach percents at a million steps.
"""

import math
from dataclasses import dataclass

import numpy as np
from dp_accounting.pld import pld_pmf
from scipy import special

from hushtune.privacy.accounting.pairs import Pair

# First interval, in standard deviations of the loss of one step. Sharing out the mass of a cell
# between its ends adds interval²/6 to the variance, so that ε starts about 0.4 % above its limit.
_FIRST_INTERVAL = 0.2
# Where rare large losses make that deviation small, the first grid has this many points instead.
_FIRST_POINTS = 4096
# The grid is fine enough when halving the interval moves ε by less than this fraction: the first
# while a finer grid is cheap, the second from where time is felt, and from there on also when it
# moves by less than the third, since nobody decides by a smaller ε.
_TOLERANCE = 0.001
_COARSE_TOLERANCE = 0.002
_ABSOLUTE_TOLERANCE = 3e-5
_CHEAP_GRID = 2**17
# Beyond this many points a finer grid is not tried: what has been found is sound, if not tight.
_LARGEST_GRID = 2**21
# Mass, as a fraction of δ, that all steps together may round up to an infinite loss.
_TAIL_SHARE = 1e-6
# What the Fourier transforms may get wrong in δ, per step: ten times what was seen.
_TRANSFORM_ERROR = 2.0**-52
# Above this fraction of δ the error of the transforms is felt, and Rényi's bound may be better.
_TRANSFORM_SHARE = 0.1
_RENYI_ORDERS = np.geomspace(1e-4, 1e4, 161)


@dataclass(frozen=True)
class LossGrid:
    """A pessimistic privacy loss distribution of one step.

    Attributes:
        first: index of the lowest loss; the loss at index i is i·interval.
        interval: distance between losses.
        masses: probability of each loss, shape (points,).
        infinite: probability rounded up to an infinite loss.
    """

    first: int
    interval: float
    masses: np.ndarray
    infinite: float

    def compose(self, steps: int, deviation: float, tail: float) -> pld_pmf.DensePLDPmf:
        """The distribution of the sum of `steps` losses, in a window that leaves out `tail`.

        dp-accounting finds the window from Chernoff bounds of orders 1/n to 20/n, where n is
        the number of points. Zeros appended to a short grid bring the best order into that range;
        without them the window, and the time, can be several times larger.

        Args:
            steps: how many independent steps.
            deviation: standard deviation of one loss.
            tail: mass outside the window, which becomes an infinite loss.
        """
        if steps == 1:
            return self._distribution(self.masses)
        best_order = math.sqrt(2 * math.log(2 / tail) / steps) * self.interval / deviation
        missing = min(round(4 / best_order), _LARGEST_GRID) - self.masses.size
        padded = np.pad(self.masses, (0, max(missing, 0)))
        # Moments of orders that the loss does not have overflow; dp-accounting passes over them.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._distribution(padded).self_compose(steps, tail)

    def renyi_epsilon(self, steps: int, delta: float) -> float:
        """An ε from moments alone: looser by some 10 %, and free of the transforms' rounding.

        For θ > 0, δ(ε) is at most E[e^(θ(loss − ε))]·θ^θ/(1 + θ)^(1 + θ), which is the conversion
        of Canonne, Kamath and Steinke 2020 (Proposition 12) at Rényi order 1 + θ.

        Args:
            steps: how many independent steps.
            delta: the δ of the guarantee.
        """
        finite = delta - steps * self.infinite
        if finite <= 0:
            return math.inf
        present = self.masses > 0
        losses = (self.first + np.flatnonzero(present)) * self.interval
        log_masses = np.log(self.masses[present])
        bounds = [
            (
                steps * special.logsumexp(log_masses + order * losses)
                + order * math.log(order)
                - (1 + order) * math.log1p(order)
                - math.log(finite)
            )
            / order
            for order in _RENYI_ORDERS
        ]
        return max(0.0, min(bounds))

    def _distribution(self, masses: np.ndarray) -> pld_pmf.DensePLDPmf:
        return pld_pmf.DensePLDPmf(
            discretization=self.interval,
            lower_loss=self.first,
            probs=masses,
            infinity_mass=self.infinite,
            pessimistic_estimate=True,
        )


def connect_the_dots(upper: np.ndarray, lower: np.ndarray, first: int, interval: float) -> LossGrid:
    """Put the loss log(upper / lower) on a grid so that every δ(ε) is kept or exceeded.

    The mass of a cell is shared between its two ends so that its upper and its lower mass are both
    kept (2207.04380, Section 4). Computed from masses, not from δ(ε), so that rounding can
    misplace a little mass by one cell but neither create nor lose any.

    Args:
        upper: mass under the distribution that the loss is drawn from, shape (cells + 2,). The
            first entry is for losses under first·interval, which are rounded up to it, the last
            for those over the grid, which are rounded up to infinity; those between have the cells.
        lower: the same under the other distribution.
        first: index of the lowest loss on the grid.
        interval: distance between losses.
    """
    inner_upper, inner_lower = upper[1:-1], lower[1:-1]
    losses = (first + np.arange(inner_upper.size)) * interval
    with np.errstate(over="ignore", invalid="ignore"):
        excess = inner_upper - np.exp(losses) * inner_lower
    to_upper_end = np.clip(excess / -math.expm1(-interval), 0.0, inner_upper)
    # Where e^loss overflows, everything goes to the upper end: more than is due, never less.
    to_upper_end = np.where(losses > 600.0, inner_upper, to_upper_end)
    masses = np.zeros(inner_upper.size + 1)
    masses[:-1] = inner_upper - to_upper_end
    masses[1:] += to_upper_end
    masses[0] += upper[0]
    return LossGrid(first, interval, masses, float(upper[-1]))


def discretise(pair: Pair, interval: float, log_tail: float) -> list[LossGrid]:
    """The losses of one step: a single grid if the pair is symmetric, else one for each order.

    Args:
        pair: the dominating pair of the step.
        interval: distance between losses.
        log_tail: logarithm of the mass that may be rounded up to an infinite loss.
    """
    lowest, highest = pair.loss_range(log_tail)
    first = math.floor(lowest / interval)
    last = max(math.ceil(highest / interval), first + 1)
    edges = pair.position(np.arange(first, last + 1) * interval)
    upper, lower = pair.masses(np.concatenate([[-np.inf], edges, [np.inf]]))
    grids = [connect_the_dots(upper, lower, first, interval)]
    if not pair.symmetric:
        grids.append(connect_the_dots(lower[::-1], upper[::-1], -last, interval))
    return grids


@dataclass(frozen=True)
class _Composed:
    """All steps on one grid: the grids of a step, and the distributions of their sums."""

    grids: list[LossGrid]
    sums: list[pld_pmf.DensePLDPmf]

    def epsilon(self, delta: float) -> float:
        """The smallest ε that holds whichever of two neighbouring data sets was used."""
        found = 0.0
        # Adding an example nearly always reveals less than removing one, and often no ε is needed
        # at all: a look at δ is cheaper than a search.
        for distribution in self.sums:
            # Beyond ε = 700 dp-accounting's masses underflow and it errs upwards, up to infinity.
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                if not distribution.get_delta_for_epsilon(found) <= delta:
                    found = max(found, float(distribution.get_epsilon_for_delta(delta)))
        return found


class PrivacyLossCurve:
    """ε as a function of δ for independent releases of one mechanism.

    Args:
        pair: the dominating pair of one step.
        steps: number of steps.
        delta: about the δ for which ε will be asked; sets how much of the tails is cut off.
    """

    def __init__(self, pair: Pair, steps: int, delta: float) -> None:
        self._pair = pair
        self._steps = steps
        self._tail = _TAIL_SHARE * delta
        self._deviation = pair.spread()
        lowest, highest = pair.loss_range(self._log_step_tail)
        self._span = highest - lowest
        self._first_interval = max(_FIRST_INTERVAL * self._deviation, self._span / _FIRST_POINTS)
        self._composed: list[_Composed] = []

    def epsilon(self, delta: float) -> float:
        """The smallest ε found that holds with `delta`; never below the smallest there is.

        The interval is halved until ε moves by less than 0.1 % (0.2 % from about 10^5 steps on).
        The excess falls by a factor of four each time, so that what is returned is within about a
        third of that of the limit.
        """
        return self._smallest(delta, most_halvings=64)

    def rough_epsilon(self, delta: float) -> float:
        """ε on the first grid alone: quick, sound, typically half a percent above `epsilon`."""
        return self._smallest(delta, most_halvings=0)

    def _smallest(self, delta: float, most_halvings: int) -> float:
        transform_error = _TRANSFORM_ERROR * self._steps if self._steps > 1 else 0.0
        found = math.inf
        if delta > transform_error:
            found = self._refined(delta - transform_error, most_halvings)
        if transform_error > _TRANSFORM_SHARE * delta:
            grids = self._at(0).grids
            found = min(found, max(grid.renyi_epsilon(self._steps, delta) for grid in grids))
        return found

    def _refined(self, delta: float, most_halvings: int) -> float:
        found = self._at(0).epsilon(delta)
        for halvings in range(1, most_halvings + 1):
            if found == 0 or self._points(halvings) > _LARGEST_GRID:
                break
            finer = self._at(halvings).epsilon(delta)
            cheap = self._points(halvings + 1) <= _CHEAP_GRID
            coarse_tolerance = max(found * _COARSE_TOLERANCE, _ABSOLUTE_TOLERANCE)
            settled = found - finer <= (found * _TOLERANCE if cheap else coarse_tolerance)
            found = min(found, finer)
            if settled:
                break
        return found

    @property
    def _log_step_tail(self) -> float:
        return math.log(self._tail / self._steps)

    def _points(self, halvings: int) -> float:
        """About how many points the composed distribution has."""
        window = 2 * self._deviation * math.sqrt(2 * self._steps * math.log(2 / self._tail))
        return max(window, self._span) * 2**halvings / self._first_interval

    def _at(self, halvings: int) -> _Composed:
        while len(self._composed) <= halvings:
            interval = self._first_interval / 2 ** len(self._composed)
            grids = discretise(self._pair, interval, self._log_step_tail)
            sums = [grid.compose(self._steps, self._deviation, self._tail) for grid in grids]
            self._composed.append(_Composed(grids, sums))
        return self._composed[halvings]
