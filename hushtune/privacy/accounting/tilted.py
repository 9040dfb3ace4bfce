"""The sum of many losses by one Fourier transform, exponentially tilted to where δ is decided.

δ is decided by losses near ε, whose probability may be 10^-15 or less: far below the rounding of a
transform of probabilities. So the transform is of masses·e^(order·loss), normalised, with the order
chosen so that losses near ε are the likely ones (Esscher 1932; large deviations). Undoing the tilt
multiplies probabilities and rounding errors alike by e^(−order·loss), so that the error is small
relative to δ whatever δ is. What rounding and the finite window may hide is bounded, not estimated,
and added to δ; the bounds are in the comments where they are computed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal

from hushtune.privacy.accounting.losses import ROUNDING, Losses

_UNIT = 2.0**-53
# Error of a transform of 2^n points, relative to the 1-norm of its input for a single output and
# to the 2-norm for all: this many units in the last place a level, of which there are n. A radix-2
# level loses at most 7 (Higham 2002, Theorem 24.2); radix 4 and the real packing need no more
# multiplications, and get as much again.
_TRANSFORM_UNITS = 16.0
# A product of two complex numbers is off by at most √5 units (Brent, Percival and Zimmermann 2007).
_PRODUCT_UNITS = 3.0
# Frequencies whose amplitude is provably below e to this are left out, and charged.
_NEGLIGIBLE_LOG_AMPLITUDE = -90.0


@dataclass(frozen=True)
class Window:
    """Which sums of losses are kept apart: `points` (a power of two) multiples of `interval`."""

    interval: float
    first: int
    points: int

    @property
    def end(self) -> float:
        """The first loss above the window."""
        return (self.first + self.points) * self.interval


@dataclass(frozen=True)
class Part:
    """Some independent losses with one distribution, on multiples of the window's interval."""

    losses: Losses
    steps: int


@dataclass(frozen=True)
class TiltedSum:
    """The sum of all losses, tilted.

    Attributes:
        window: the sums that the masses are of.
        order: the tilt.
        masses: probability of each sum times e^(order·sum − log_moment), shape (points,).
        log_moment: logarithm of E[e^(order·sum)].
        error: bound on the 2-norm of what rounding changed in the masses.
        relative: bound on what rounding took from any δ(ε), as a fraction of it.
        outside: bound on the probability of a sum above the window or infinite.
    """

    window: Window
    order: float
    masses: np.ndarray
    log_moment: float
    error: float
    relative: float
    outside: float

    def epsilon(self, delta: float) -> float:
        """The smallest ε ≥ 0 in the window with δ(ε) ≤ `delta`; infinity if there is none."""
        allowed = (delta - self.outside) * (1 - self.relative)
        if allowed <= 0:
            return math.inf
        start = max(-self.window.first, 0)
        log_excess = self._log_deltas()[start:] - math.log(allowed)
        enough = log_excess <= 0
        if not enough.any():
            return math.inf
        here = int(np.argmax(enough))
        step = self.window.interval
        lower = (self.window.first + start + here - 1) * step
        if here == 0:
            return max(lower + step, 0.0)
        # Between multiples of the interval δ(ε) is linear in e^ε.
        above, below = math.expm1(log_excess[here - 1]), math.expm1(log_excess[here])
        return lower + math.log1p(math.expm1(step) * above / (above - below))

    def _log_deltas(self) -> np.ndarray:
        """Upper bounds on log δ(ε), without what is outside, at every loss of the window.

        With r = e^(−order·interval), let A(j) = Σ_{s>j} mass(s)·r^(s−j) and
        D(j) = Σ_{s>j} mass(s)·r^(s−j)·(1 − e^(−(s−j)·interval)), so that
        δ = e^(log_moment − order·loss)·D. Both follow from their right-hand neighbours by sums of
        positive terms, which lose no digits to cancellation.
        """
        step = self.window.interval
        ratio, shrink = math.exp(-self.order * step), math.exp(-step)
        reversed_masses = self.masses[::-1]
        mass_above = _recurrence(ratio, ratio, reversed_masses)
        weighted = _recurrence(
            -ratio * math.expm1(-step), ratio * shrink, reversed_masses + mass_above
        )
        away = np.arange(1, self.window.points + 1) * step
        weights = np.exp(-self.order * away) * -np.expm1(-away)
        # Cauchy and Schwarz: the weights of δ against the error of the masses.
        charged = weighted[::-1] + self.error * float(np.linalg.norm(weights))
        losses = (self.window.first + np.arange(self.window.points)) * step
        with np.errstate(divide="ignore"):
            return self.log_moment - self.order * losses + np.log(charged)


def add_up(parts: Sequence[Part], window: Window, order: float, tail_order: float) -> TiltedSum:
    """The tilted distribution of the sum of all losses of all parts.

    A transform adds sums modulo the window. What comes from below the window lands on a larger
    loss, which can only raise δ. What comes from above is at most E[e^(tail_order·sum)] over
    e^(tail_order·end of the window) (Chernoff) and charged.

    Args:
        parts: the losses to add up.
        window: the sums to keep apart.
        order: the tilt, above 0.
        tail_order: any order above 0; near the tilt of the end of the window it charges least.
    """
    levels = math.log2(window.points)
    log_amplitude = np.zeros(window.points // 2 + 1)
    errors = np.zeros_like(log_amplitude)
    transforms = []
    log_moment, log_outside, relative, log_finite, first = 0.0, 0.0, 0.0, 0.0, 0
    for part in parts:
        losses, steps = part.losses, part.steps
        here, at_end = losses.log_moment(np.array([order, tail_order]))
        tilted = losses.tilted(order, here)
        transform = np.fft.rfft(_folded(tilted, window.points))
        # Each output is a sum over inputs, each of which came by one path of `levels` operations.
        error = _TRANSFORM_UNITS * levels * _UNIT * float(tilted.sum())
        # A perturbed number to the power of n is off by at most n times its error times the
        # larger of both to the power of n − 1; a product of such powers likewise, part by part.
        amplitude = np.abs(transform) + error
        log_amplitude += steps * np.log(amplitude)
        errors += steps * (error / amplitude + _PRODUCT_UNITS * _UNIT)
        transforms.append((transform, steps))
        log_moment += steps * here
        log_outside += steps * at_end
        relative += steps * _relative_error(losses, order, here)
        log_finite += steps * math.log1p(-losses.infinite)
        first += steps * round(losses.values[0] / window.interval)
    likely = log_amplitude > _NEGLIGIBLE_LOG_AMPLITUDE
    product = np.zeros(log_amplitude.size, dtype=complex)
    product[likely] = 1.0
    for transform, steps in transforms:
        product[likely] *= _power(transform[likely], steps)
    error = np.exp(log_amplitude) * np.where(likely, errors, 1.0)
    # By Parseval the 2-norm over losses is the root mean square over frequencies.
    error_norm = _root_mean_square(error, window.points)
    error_norm += _TRANSFORM_UNITS * levels * _UNIT * _root_mean_square(product, window.points)
    sums = np.roll(np.fft.irfft(product, window.points), (first - window.first) % window.points)
    return TiltedSum(
        window=window,
        order=order,
        masses=np.maximum(sums, 0.0),
        log_moment=log_moment,
        error=error_norm,
        # The recurrences for δ round four times a point.
        relative=relative + 4 * window.points * _UNIT,
        # Twice Chernoff's bound leaves room for the rounding of the moments.
        outside=2 * math.exp(min(log_outside - tail_order * window.end, 0.0))
        - math.expm1(log_finite),
    )


def _relative_error(losses: Losses, order: float, log_moment: float) -> float:
    """What rounding can take from any δ(ε) through one of these losses, as a fraction of δ(ε).

    The probability of reaching any of the losses is a normal tail R, too small by a fraction of
    up to ROUNDING·(1 − log R): as if, with that probability, the loss was minus infinity. Tilting
    multiplies each mass by e to an exponent that is off by a few units in its last place.
    """
    least = -math.log(losses.masses[losses.masses > 0].min())
    exponent = order * max(abs(losses.values[0]), abs(losses.values[-1])) + abs(log_moment) + least
    return ROUNDING * (1 + least) + 4 * _UNIT * (1 + exponent)


def _recurrence(gain: float, decay: float, inputs: np.ndarray) -> np.ndarray:
    """out[n] = gain·inputs[n − 1] + decay·out[n − 1], from 0."""
    return np.asarray(signal.lfilter([0.0, gain], [1.0, -decay], inputs))


def _folded(masses: np.ndarray, points: int) -> np.ndarray:
    """Masses added up modulo the window, shape (points,)."""
    rows = -(-masses.size // points)
    return np.pad(masses, (0, rows * points - masses.size)).reshape(rows, points).sum(axis=0)


def _power(base: np.ndarray, exponent: int) -> np.ndarray:
    """By repeated squaring, whose rounding is known: n factors are off by n products' errors."""
    result = np.ones_like(base)
    while exponent:
        if exponent & 1:
            result *= base
        exponent >>= 1
        if exponent:
            base = base * base
    return result


def _root_mean_square(half: np.ndarray, points: int) -> float:
    """Of all `points` amplitudes, given those of the frequencies from zero to the middle."""
    squares = np.abs(half) ** 2
    return math.sqrt((2 * squares.sum() - squares[0] - squares[-1]) / points)
