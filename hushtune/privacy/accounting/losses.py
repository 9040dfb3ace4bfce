"""The privacy loss of one step as a pessimistic distribution on finitely many values.

Connect-the-Dots (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022, arXiv 2207.04380) never
under-reports, and its excess shrinks with the square of the distance between the values. It is
computed here from the masses of cells. dp-accounting's constructors visit the values one at a time
and obtain masses as second differences of δ(ε), whose rounding reaches percents at a million steps.
"""

import math
from dataclasses import dataclass

import numpy as np

from hushtune.privacy.accounting.pairs import Pair

# Relative error of a normal tail of probability R: ROUNDING·(1 − log R). The argument's square,
# which is exponentiated, is about −2 log R.
ROUNDING = 2.0**-50


@dataclass(frozen=True)
class Losses:
    """A pessimistic privacy loss distribution of one step.

    Attributes:
        values: the finite losses, increasing, shape (losses,).
        masses: their probabilities, shape (losses,).
        infinite: probability of an infinite loss.
    """

    values: np.ndarray
    masses: np.ndarray
    infinite: float

    def log_moment(self, orders: np.ndarray) -> np.ndarray:
        """log E[e^(order·loss); loss finite] for each order, shape (orders,)."""
        present = self.masses > 0
        terms = np.multiply.outer(orders, self.values[present]) + np.log(self.masses[present])
        largest = terms.max(axis=-1)
        return largest + np.log(np.exp(terms - largest[..., None]).sum(axis=-1))

    def tilted(self, order: float, log_moment: float) -> np.ndarray:
        """masses·e^(order·loss − log_moment): probabilities, if that is the moment's logarithm."""
        with np.errstate(divide="ignore"):
            return np.exp(np.log(self.masses) + (order * self.values - log_moment))


def connect_the_dots(upper: np.ndarray, lower: np.ndarray, values: np.ndarray) -> Losses:
    """Put the loss log(upper / lower) on given values so that every δ(ε) is kept or exceeded.

    The mass of a cell is shared between its two ends so that its upper and its lower mass are both
    kept (2207.04380, Section 4). The share of the upper end is raised by what rounding may have
    taken from it: a cell's mass is a difference of tails, of which the larger is at most the mass
    at and above the cell, and so is the lower tail times e^loss, since the loss increases.

    Args:
        upper: mass under the distribution that the loss is drawn from, shape (values + 1,). The
            first entry is for losses under the lowest value, which are rounded up to it, the last
            for those over the highest, which are rounded up to infinity; between are the cells.
        lower: the same under the other distribution.
        values: increasing losses, shape (values,).
    """
    inner_upper, inner_lower = upper[1:-1], lower[1:-1]
    start = values[:-1]
    tail = np.cumsum(upper[::-1])[::-1][1:-1]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        lost = np.where(tail > 0, 2 * ROUNDING * tail * (1 - np.log(tail)), 0.0)
        excess = inner_upper - np.exp(start) * inner_lower + lost
        to_upper_end = np.clip(excess / -np.expm1(-np.diff(values)), 0.0, inner_upper)
    # Where e^loss overflows, everything goes to the upper end: more than is due, never less.
    to_upper_end = np.where(start > 600.0, inner_upper, to_upper_end)
    masses = np.zeros(values.size)
    masses[:-1] = inner_upper - to_upper_end
    masses[1:] += to_upper_end
    masses[0] += upper[0]
    return Losses(values, masses, float(upper[-1]))


def moments_of(pair: Pair, direction: int, log_tail: float) -> Losses:
    """The losses of a pair on values that follow its shape: for moments, not for sums.

    Args:
        pair: the dominating pair of the step.
        direction: 0 for losses under the pair's upper distribution, 1 for its two exchanged.
        log_tail: logarithm of the mass that may be rounded up to an infinite loss.
    """
    positions = pair.positions(log_tail)
    values, first = np.unique(pair.loss(positions), return_index=True)
    return _directed(pair, direction, positions[first], -values[::-1] if direction else values)


def lattice_of(
    pair: Pair, direction: int, log_tail: float, interval: float, floor: float
) -> Losses:
    """The losses of a pair on whole multiples of an interval.

    Args:
        pair: the dominating pair of the step.
        direction: 0 for losses under the pair's upper distribution, 1 for its two exchanged.
        log_tail: logarithm of the mass that may be rounded up to an infinite loss.
        interval: distance between losses.
        floor: about the loss to which those below it are rounded up.
    """
    ends = pair.loss(pair.positions(log_tail)[[0, -1]])
    lowest, highest = -ends[::-1] if direction else ends
    last = math.ceil(highest / interval)
    first = min(math.floor(max(lowest, floor) / interval), last - 1)
    values = np.arange(first, last + 1) * interval
    positions = pair.position(-values[::-1] if direction else values)
    return _directed(pair, direction, positions, values)


def _directed(pair: Pair, direction: int, positions: np.ndarray, values: np.ndarray) -> Losses:
    upper, lower = pair.masses(np.concatenate([[-np.inf], positions, [np.inf]]))
    if direction:
        upper, lower = lower[::-1], upper[::-1]
    return connect_the_dots(upper, lower, values)
