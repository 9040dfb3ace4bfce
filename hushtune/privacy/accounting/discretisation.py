"""What it costs that the noise is an integer: exact discrete noise is not rounded noise.

Accounting is of continuous noise, which rounding to integers leaves as private (post-processing).
What is drawn is a discrete Gaussian or Laplace of integer scale s, a little different from rounded
noise. With s ≥ 2^32 the charge is far below anything that is printed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Total variation distance of discrete from rounded noise, a coordinate, in units of 1/s².
_VARIATION = {"gaussian": 0.0202, "laplace": 0.125}
# Share of δ given up for the tails beyond which two Gaussians are not compared.
_TAIL_SHARE = 1e-9
# A charge below this fraction of ε is not worth a second way of computing it.
_NEGLIGIBLE = 1e-6


def charge_delta(epsilon_at: Callable[[float], float], delta: float, distance: float) -> float:
    """The smallest ε found with δ(ε) + (1 + e^ε)·distance ≤ δ, or infinity.

    Sound for outputs within total variation `distance` of those accounted for: each of two
    neighbouring outputs is replaced by its nearby one, the second weighted by e^ε.

    Args:
        epsilon_at: ε of the accounted mechanism as a function of δ.
        delta: the δ of the guarantee.
        distance: total variation over all steps and coordinates.
    """

    def required(epsilon: float) -> float:
        charge = distance * (1 + math.exp(min(epsilon, 700.0)))
        return epsilon_at(delta - charge) if charge < delta else math.inf

    # ε must pay for itself: a larger ε costs more δ, which asks for a still larger ε.
    epsilon = epsilon_at(delta)
    for _ in range(32):
        needed = required(epsilon)
        if needed <= epsilon or math.isinf(needed):
            return max(needed, epsilon)
        epsilon = needed * (1 + 1e-6) + 1e-12
    return math.inf


def charge_ratio(
    epsilon_at: Callable[[float], float], delta: float, ratio: float, log_tail: float
) -> float:
    """ε + 2·ratio with δ reduced to pay for the tail, or infinity if the tail is not small.

    Sound where the densities of drawn and accounted noise are within e^±ratio of each other but
    for a tail: P' ≤ e^ratio·P + tail and Q ≤ e^ratio·Q' + tail turn (ε, δ₀) for P, Q into
    (ε + 2·ratio, e^ratio·δ₀ + (1 + e^(ε + ratio))·tail) for P', Q'.

    Args:
        epsilon_at: ε of the accounted mechanism as a function of δ.
        delta: the δ of the guarantee.
        ratio: bound on the log-ratio over all steps and coordinates.
        log_tail: logarithm of the mass given up, over all steps and coordinates.
    """
    if ratio > 100.0:
        return math.inf
    epsilon = epsilon_at(delta * math.exp(-ratio) * (1 - _TAIL_SHARE))
    log_cost = log_tail + epsilon + ratio + math.log(2)
    if not log_cost < math.log(_TAIL_SHARE * delta):
        return math.inf
    return epsilon + 2 * ratio


@dataclass(frozen=True)
class Drawn:
    """Integer noise: `coordinates` numbers of one integer scale, over all steps and directions."""

    mechanism: str
    coordinates: int
    scale: int


def variation(drawn: Sequence[Drawn]) -> float:
    """Total variation distance of all this integer noise from rounded noise, at most."""
    return sum(each.coordinates * _VARIATION[each.mechanism] / each.scale**2 for each in drawn)


def integer_epsilon(
    epsilon_at: Callable[[float], float], delta: float, drawn: Sequence[Drawn]
) -> float:
    """ε with discrete noise, its difference charged as ε or as δ, whichever comes out smaller.

    The log-ratio of a discrete to a rounded Gaussian of scale s is at most (x² + 1)/24s² at x
    standard deviations: averaging the density over a cell multiplies it by a factor between
    e^(−1/24s²), by Jensen's inequality, and sinh(y)/y ≤ e^(y²/6) with y = x/2s. Both tails are
    sub-Gaussian (Canonne, Kamath and Steinke 2020, Proposition 25, for the discrete one).

    The log-ratio of discrete to rounded Laplace noise of scale s is log cosh(1/2s) ≤ 1/8s² away
    from zero and, at zero, where it is largest, at most 1/4s; there is no tail.

    Args:
        epsilon_at: ε of the same plan with continuous noise, as a function of δ.
        delta: the δ of the guarantee, above 0.
        drawn: all integer noise.
    """
    if not drawn:
        return epsilon_at(delta)
    gaussian = [each for each in drawn if each.mechanism == "gaussian"]
    laplace = [each for each in drawn if each.mechanism == "laplace"]
    coordinates = sum(each.coordinates for each in gaussian)
    ratio = sum(each.coordinates / (4 * each.scale) for each in laplace)
    log_tail = -math.inf
    if gaussian:
        needed = epsilon_at(delta) + math.log(coordinates / delta / _TAIL_SHARE) + 4.0
        if math.isinf(needed):
            return math.inf
        # Half a standard deviation more than needed, since rounding moves by up to half a unit.
        reach = math.sqrt(2 * needed) + 0.5
        ratio += sum(each.coordinates * (reach**2 + 1) / (24 * each.scale**2) for each in gaussian)
        log_tail = math.log(2 * coordinates) - (reach - 0.5) ** 2 / 2
    charged_as_epsilon = charge_ratio(epsilon_at, delta, ratio, log_tail)
    if 2 * ratio <= _NEGLIGIBLE * charged_as_epsilon < math.inf:
        return charged_as_epsilon
    return min(charged_as_epsilon, charge_delta(epsilon_at, delta, variation(drawn)))
