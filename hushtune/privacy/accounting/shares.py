"""Noise that clients add in shares, so that nobody holds all of it: sums of discrete Gaussians.

Each client adds independent discrete Gaussian noise of integer scale s to its K integers, and only
the sum over clients is seen. At least m clients are assumed to be honest and to stay to the end of
the round; the noise of others, and of more than m, is post-processing and counts for nothing. What
counts has variance m·s², but is no discrete Gaussian, since the sum of two is not one. Its distance
from the discrete Gaussian of that variance is charged (Kairouz, Liu and Steinke 2021).

What is charged, and why. Let P be the discrete Gaussian of variance m·s² and e^g·P what counts.
Adding a share to j of them averages e^g and then multiplies it, up to a constant, by
Σ_x exp(−(x − u)²/2κ²) with κ² = s²·j/(j + 1) and some u that depends on the sum. By Poisson
summation this is proportional to 1 + 2·Σ_k r^(k²)·cos(2πku) with r = exp(−2π²κ²), which is largest
at u = 0 and smallest at u = 1/2: g swings by at most log((1 + 2r + 2r⁴ + …)/(1 − 2r + …)) more,
which is less than 5r as r ≤ 0.1 for s ≥ 1/2. Both distributions having mass 1, g has no one sign,
and stays within ±τ/2 on every coordinate, with

    τ = 10·Σ_{j<m} exp(−2π²s²·j/(j + 1)).

Two guarantees follow. In (ε, δ): T adaptive rounds of K numbers have densities within e^±(TKτ/2) of
those with noise from P, whatever is sampled, so that what holds for P holds with TKτ more of ε and
δ e^(TKτ/2) times as large. In Rényi's terms: each share is sub-Gaussian with its own variance
(Canonne, Kamath and Steinke 2020, Proposition 25), hence the sum with m·s², and a round has the
divergence αΔ²/(2ms²) + Kτ/2 of order α, where Δ is the sensitivity; the authors' code, citing their
Proposition 14, has Kτ there. As α ≥ 1 this is ½ε²-concentrated differential privacy with
ε² = Δ²/(ms²) + Kτ. Stated with ε² = min{Δ²/(ms²) + Kτ/2, (Δ/(√m·s) + τ√K)²}, as it also is, it has
constants that the above does not prove, and that are not relied on here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from hushtune.privacy.accounting.composed import Phase, Spent, composed_epsilon
from hushtune.privacy.accounting.discretisation import charge_ratio
from hushtune.privacy.accounting.gaussian_dp import composed_mu, mu_of_rounds, rdp_epsilon
from hushtune.privacy.accounting.validation import (
    check_delta_of_gaussian,
    check_guarantee,
    check_release,
    expect,
    is_positive_integer,
    is_real,
)

# Above what rounding can take from a term of τ that is no underflow: its exponent, at most 750,
# is off by a few units in the last place.
_ROUNDING = 1e-12
_SMALLEST = math.ulp(0.0)


def share_of_noise(total_scale: int, honest: int) -> int:
    """The smallest integer scale s of a client's noise with m·s² ≥ total².

    Args:
        total_scale: scale of the noise that is accounted for, in units of the grid.
        honest: m, how many clients are sure to be honest and to stay.

    Raises:
        ValueError: if a value is not an integer from 1 up to 2^53.
    """
    _expect_count("total_scale", total_scale)
    _expect_count("honest", honest)
    return math.isqrt(-(-(total_scale**2) // honest) - 1) + 1


@dataclass(frozen=True, kw_only=True)
class SharedRounds:
    """Rounds that are alike, with noise in shares.

    Attributes:
        sensitivity: Δ, the L2 norm within which a unit's integer vector is.
        scale: s, the integer scale of each client's discrete Gaussian noise, a coordinate.
        honest: m, how many clients are sure to be honest and to stay.
        coordinates: K, how many integers a round releases.
        rounds: T, how many rounds.
        sampling_probability: q, with which a unit takes part in a round, if whoever sees the sum
            does not learn who does; else 1.

    Raises:
        ValueError: if a value is out of range; one line that names it and what is accepted.
    """

    sensitivity: int
    scale: int
    honest: int
    coordinates: int
    rounds: int
    sampling_probability: float = 1.0

    def __post_init__(self) -> None:
        for name in ("sensitivity", "scale", "honest"):
            _expect_count(name, getattr(self, name))
        check_release(
            mechanism="gaussian",
            sampling_probability=self.sampling_probability,
            steps=self.rounds,
            directions=self.coordinates,
        )

    @property
    def variance(self) -> int:
        """m·s², of the noise that counts, a coordinate."""
        return self.honest * self.scale**2

    @property
    def tau(self) -> float:
        """τ of a coordinate and round: an upper bound also where floats would underflow to 0.

        0 for a single share only, which is a discrete Gaussian.
        """
        terms = (
            math.exp(-2 * math.pi**2 * self.scale**2 * (j / (j + 1))) for j in range(1, self.honest)
        )
        # A term that underflows, or is rounded below the normal range, loses less than the
        # smallest number.
        return 10 * (math.fsum(terms) * (1 + _ROUNDING) + (self.honest - 1) * _SMALLEST)

    @property
    def central(self) -> Phase:
        """The same rounds with one discrete Gaussian of that variance: what they are compared to.

        Its noise multiplier √m·s/Δ and its scale √m·s are rounded down.
        """
        root = math.isqrt(self.variance << 64)
        return Phase(
            mechanism="gaussian",
            noise_multiplier=_rounded_down(Fraction(root, self.sensitivity << 32)),
            sampling_probability=self.sampling_probability,
            steps=self.rounds,
            directions=self.coordinates,
            noise_scale_integer=math.isqrt(self.variance),
        )

    def renyi_divergence(self, order: float) -> float:
        """T·(αΔ²/(2ms²) + Kτ/2), for add-or-remove-one and without sampling.

        Raises:
            ValueError: if the order is not above 1 or q is not 1.
        """
        expect(is_real(order) and order > 1, "order", order, "above 1 and finite")
        probability = self.sampling_probability
        expect(probability == 1, "sampling_probability", probability, "1 for this curve")
        gaussian = order * self.sensitivity**2 / self.variance / 2
        return self.rounds * (gaussian + self.coordinates * self.tau / 2) * (1 + _ROUNDING)


def epsilon_of_shares(
    parts: Sequence[SharedRounds | Phase | Spent],
    *,
    delta: float,
    adjacency: str = "add-or-remove-one",
) -> float:
    """The ε of rounds with noise in shares, and of whatever else was released from the same data.

    With R the sum of TKτ/2: `composed_epsilon` of the same parts with discrete Gaussians of the
    summed variance, at δ·e^(−R), and 2R more. If all parts are shares without sampling, also ε of
    their Rényi curve, which is less where the scale is so small that integer noise costs much.
    Neither is below what exact discrete Gaussians of the summed variance cost.

    Args:
        parts: rounds with shares, and other parts as for `composed_epsilon`, in any order.
        delta: δ of the guarantee, above 0.
        adjacency: "add-or-remove-one" or "replace-one", for all parts.

    Returns:
        ε; infinity if none was found, which takes shares that are far too small.

    Raises:
        ValueError: if a value is out of range.
    """
    check_guarantee(delta=delta, adjacency=adjacency)
    check_delta_of_gaussian(delta)
    central = [part.central if isinstance(part, SharedRounds) else part for part in parts]
    shared = [part for part in parts if isinstance(part, SharedRounds)]
    ratio = math.fsum(part.rounds * part.coordinates * part.tau / 2 for part in shared)
    ratio *= 1 + _ROUNDING

    def central_epsilon(at_delta: float) -> float:
        return composed_epsilon(central, delta=at_delta, adjacency=adjacency)

    found = charge_ratio(central_epsilon, delta, ratio, -math.inf)
    if len(shared) < len(parts) or any(part.sampling_probability < 1 for part in shared):
        return found
    return min(found, _renyi_epsilon(shared, delta, adjacency) + ratio)


def _renyi_epsilon(parts: Sequence[SharedRounds], delta: float, adjacency: str) -> float:
    """ε at δ from the Rényi curve of all rounds, without what is charged for shares."""
    if not parts:
        return 0.0
    return rdp_epsilon(
        composed_mu(
            *(mu_of_rounds(part.central.noise_multiplier, part.rounds, adjacency) for part in parts)
        ),
        delta,
    )


def _rounded_down(value: Fraction) -> float:
    quotient = float(value)
    return quotient if Fraction(quotient) <= value else math.nextafter(quotient, 0.0)


def _expect_count(name: str, value: int) -> None:
    # From 2^53 not every integer is a float.
    accepted = "an integer from 1 up to 2^53"
    expect(is_positive_integer(value) and value < 2**53, name, value, accepted)
