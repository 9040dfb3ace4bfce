"""From what an attack achieves on one step to a lower bound on ε for all steps.

An attack is a test of "the unit's data are there" on what one step publishes: it says yes with
probability x if they are not and z if they are. An operating point (x, z) is *attainable* if some
test, randomised or not, has it. Attainable points of a pair of distributions form a convex set
that holds (0, 0) and (1, 1).

Formal guarantee. Let (P, P') be the distributions of what one step publishes for two neighbouring
data sets, the sampling of units included. If all given points are attainable, so is their concave
envelope, which is that of a pair (p, p') on finitely many values. By Blackwell's theorem some
randomised map takes P to p and P' to p'. Applied to each of T independent steps it is
post-processing, which cannot increase δ(ε): every ε at which the T-fold product of (p, p') has
δ(ε) > δ is a lower bound on the ε of the whole plan. All rounding below goes down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

#: (x, z): probability of a yes without and with the unit's data.
Point = tuple[float, float]

# Width of a cell of the grid of losses, in standard deviations of the loss of one step, and the
# largest number of cells: beyond it cells are wider, and the bound a little lower.
_CELL = 1 / 500
_LARGEST_GRID = 2**20
# Fraction of δ by which the sum of the rounding errors, or the window, may fail.
_FAILURE_SHARE = 1e-4
# What the Fourier transforms may get wrong in δ, per step: ten times what was seen.
_TRANSFORM_ERROR = 2.0**-52


def plan_epsilon(points: Iterable[Point], *, steps: int, delta: float) -> float:
    """The largest ε found that `steps` independent steps are shown to exceed, at least 0.

    Args:
        points: attainable operating points of one step.
        steps: T, how many independent steps there are.
        delta: δ of the claim; at 0 the claim is about every single outcome.
    """
    envelope = np.array(concave_envelope(points))
    without, present = np.diff(envelope, axis=0).T
    if len(without) == 1:
        return 0.0  # the diagonal: nothing is told apart
    if delta == 0:
        # The outcome that takes the most telling value in every step.
        return steps * float(np.abs(np.log(present / without)).max())
    return max(
        _composed_epsilon(present, without, steps, delta),
        _composed_epsilon(without, present, steps, delta),
    )


def concave_envelope(points: Iterable[Point]) -> list[Point]:
    """Corners of the least concave curve from (0, 0) to (1, 1) above the points, in order."""
    corners: list[Point] = []
    above = [point for point in points if point[1] > point[0]]
    for x, z in sorted([(0.0, 0.0), *above, (1.0, 1.0)]):
        while len(corners) > 1:
            (x0, z0), (x1, z1) = corners[-2:]
            if (z1 - z0) * (x - x1) > (z - z1) * (x1 - x0):
                break
            corners.pop()
        corners.append((x, z))
    return corners


def _composed_epsilon(upper: np.ndarray, lower: np.ndarray, steps: int, delta: float) -> float:
    """An ε with δ(ε) > δ for T steps, where δ(ε) = E_upper[max(0, 1 − e^(ε − Σ loss))].

    Losses are rounded down onto a grid. With probability 1 − η the T errors add up to at least
    their mean less h·√(T·ln(1/η)/2) (Hoeffding), and that much is given back to the sum. δ(ε)
    grows with the loss, so what is computed is below δ(ε), up to η. The transform is circular:
    mass outside its window, at most η by Chernoff's bound, is found elsewhere.
    """
    failure = _FAILURE_SHARE * delta
    allowance = delta + 2 * failure + steps * _TRANSFORM_ERROR
    losses = np.log(upper / lower)
    deviation = _deviation(losses, upper)
    width = sum(_window(losses, upper, steps, failure, deviation))
    cell = max(_CELL * deviation, width / _LARGEST_GRID)
    places = np.floor(losses / cell)
    given_back = steps * float(upper @ (losses - places * cell)) - cell * math.sqrt(
        -steps * math.log(failure) / 2
    )
    below, above = _window(places, upper, steps, failure, deviation / cell)
    first = math.floor(steps * float(upper @ places) - below)
    size = 2 ** math.ceil(math.log2(below + above + 2))
    one = np.zeros(size)
    np.add.at(one, (places - places[0]).astype(np.int64) % size, upper)
    masses = np.fft.irfft(np.fft.rfft(one) ** steps, size)
    offset = (first - steps * int(places[0])) % size
    masses = np.roll(masses, -offset)
    sums = (first + np.arange(size)) * cell

    def delta_at(place: int) -> float:
        return float(-masses[place:] @ np.expm1(sums[place] - sums[place:]))

    least, most = 0, size - 1
    if delta_at(least) <= allowance:
        return 0.0
    while most - least > 1:
        middle = (least + most) // 2
        if delta_at(middle) > allowance:
            least = middle
        else:
            most = middle
    return max(0.0, float(sums[least]) + max(0.0, given_back))


def _deviation(values: np.ndarray, weights: np.ndarray) -> float:
    return math.sqrt(weights @ (values - weights @ values) ** 2)


def _window(
    values: np.ndarray, weights: np.ndarray, steps: int, failure: float, deviation: float
) -> tuple[float, float]:
    """Distances below and above its mean that a sum of `steps` values leaves with η/2 a side."""
    centred = values - weights @ values
    orders = np.geomspace(1e-3, 1e3, 121) / (deviation * math.sqrt(steps))
    needed = math.log(2 / failure)

    def reach(sign: int) -> float:
        terms = np.outer(orders, sign * centred) + np.log(weights)
        largest = terms.max(axis=1)
        moments = largest + np.log(np.exp(terms - largest[:, None]).sum(axis=1))
        return float(((steps * moments + needed) / orders).min())

    return reach(-1), reach(1)
