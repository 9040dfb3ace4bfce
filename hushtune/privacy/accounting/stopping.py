"""How many runs a search makes: distributions of a secret number K ≥ 1, and what each costs.

A search runs one mechanism K times on the same data, with fresh randomness each time, and releases
the best outcome and nothing else; how outcomes are ordered is fixed beforehand. Given a Rényi curve
of the mechanism, ε(λ) at each order λ, the search has the curve

    negative binomial, η ≥ 0:  ε(λ) + log E[K]/(λ − 1) + (1 + η)·min over λ̂ ≥ 1 of
                               [(1 − 1/λ̂)·ε(λ̂) + log(1/γ)/λ̂]
    Poisson:                   ε(λ) + log E[K]/(λ − 1) + μ·δ(log(λ/(λ − 1)))

(Papernot and Steinke 2022, Theorems 2 and 6), where δ(·) is any δ that the mechanism has at that
ε. Both numbers of runs are truncated, so that there is always one. For the Poisson distribution
this is not theirs; the proof is the same: K has the generating function f(x) = (e^{μx} − 1)/(e^μ −
1), hence f'(x) = E[K]·e^{μ(x − 1)} with the E[K] of the truncated one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from scipy import optimize, special

from hushtune.privacy.accounting.validation import expect, is_real

#: How many runs a search may be made to expect.
FEWEST_RUNS, MOST_RUNS = 2, 1000


class Stopping(ABC):
    """A distribution of the number of runs K ≥ 1, with parameters that are floats, taken exactly.

    Attributes:
        mean: E[K].
    """

    mean: float

    @abstractmethod
    def ratio(self, runs: int) -> Fraction:
        """Pr[K = runs + 1] / Pr[K = runs]."""

    @abstractmethod
    def largest_ratio_from(self, runs: int) -> Fraction:
        """The supremum of `ratio` over so many runs and more."""

    @abstractmethod
    def curve(self, orders: np.ndarray, base: np.ndarray) -> np.ndarray:
        """The search's Rényi curve, from that of one run at the same orders, all above 1."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain values, for the ledger's header."""

    def quantile(self, share: float) -> int:
        """The smallest number of runs that is not exceeded with about this probability."""
        weight, sums = 1.0, [1.0]
        while weight > 1e-12 * sums[-1] or self.largest_ratio_from(len(sums)) >= 1:
            weight *= float(self.ratio(len(sums)))
            sums.append(sums[-1] + weight)
        return 1 + int(np.searchsorted(sums, share * sums[-1]))


@dataclass(frozen=True)
class NegativeBinomial(Stopping):
    """The truncated negative binomial distribution: η = 0 the logarithmic, 1 the geometric one.

    Attributes:
        shape: η, at least 0.
        gamma: γ, between 0 and 1; the smaller, the more runs.

    Raises:
        ValueError: if a value is out of range.
    """

    shape: float
    gamma: float

    def __post_init__(self) -> None:
        expect(is_real(self.shape) and self.shape >= 0, "shape", self.shape, "at least 0")
        expect(is_real(self.gamma) and 0 < self.gamma < 1, "gamma", self.gamma, "from 0 to 1")

    @classmethod
    def with_mean(cls, mean: float, *, shape: float) -> NegativeBinomial:
        """The distribution of this shape with about this mean."""
        _expect_mean(mean)

        def excess(log_odds: float) -> float:
            return math.log(cls(shape, float(special.expit(log_odds))).mean / mean)

        return cls(shape, float(special.expit(_root(excess, -30.0, 30.0))))

    @property
    def mean(self) -> float:
        """E[K], from above in the last digits."""
        many = -math.log(self.gamma)
        if self.shape > 0:
            many = -math.expm1(-self.shape * many) / self.shape
        return _a_little_more((1 - self.gamma) / (self.gamma * many))

    def ratio(self, runs: int) -> Fraction:
        return (1 - Fraction(self.gamma)) * (runs + Fraction(self.shape)) / (runs + 1)

    def largest_ratio_from(self, runs: int) -> Fraction:
        # Ratios rise or fall towards 1 − γ, as η is below or above 1.
        return max(self.ratio(runs), 1 - Fraction(self.gamma))

    def curve(self, orders: np.ndarray, base: np.ndarray) -> np.ndarray:
        rarity = _a_little_more(-math.log(self.gamma))
        at_other_order = (1 - 1 / orders) * base + rarity / orders
        chosen = min(rarity, float(at_other_order.min()))  # λ̂ = 1 is an order too
        return base + math.log(self.mean) / (orders - 1) + (1 + self.shape) * chosen

    def to_json(self) -> dict[str, Any]:
        return {"distribution": "negative-binomial", "shape": self.shape, "gamma": self.gamma}


@dataclass(frozen=True)
class Poisson(Stopping):
    """The Poisson distribution, given that it is at least 1.

    Attributes:
        rate: μ, the mean before truncation.

    Raises:
        ValueError: if μ is not positive.
    """

    rate: float

    def __post_init__(self) -> None:
        expect(is_real(self.rate) and self.rate > 0, "rate", self.rate, "above 0 and finite")

    @classmethod
    def with_mean(cls, mean: float) -> Poisson:
        """The distribution with about this mean."""
        _expect_mean(mean)
        return cls(
            math.exp(_root(lambda log_rate: math.log(cls(math.exp(log_rate)).mean / mean), -30, 10))
        )

    @property
    def mean(self) -> float:
        """E[K], from above in the last digits."""
        return _a_little_more(self.rate / -math.expm1(-self.rate))

    def ratio(self, runs: int) -> Fraction:
        return Fraction(self.rate) / (runs + 1)

    def largest_ratio_from(self, runs: int) -> Fraction:
        return self.ratio(runs)

    def curve(self, orders: np.ndarray, base: np.ndarray) -> np.ndarray:
        deltas = np.array([_delta(orders, base, math.log1p(1 / (each - 1))) for each in orders])
        return base + math.log(self.mean) / (orders - 1) + self.rate * deltas

    def to_json(self) -> dict[str, Any]:
        return {"distribution": "poisson", "rate": self.rate}


#: What a person calls a distribution: the one with a given mean.
DISTRIBUTIONS: dict[str, Callable[[float], Stopping]] = {
    "poisson": Poisson.with_mean,
    "logarithmic": lambda mean: NegativeBinomial.with_mean(mean, shape=0.0),
    "geometric": lambda mean: NegativeBinomial.with_mean(mean, shape=1.0),
}


def from_json(values: dict[str, Any]) -> Stopping:
    """The distribution that `to_json` wrote.

    Raises:
        TypeError, ValueError: if it wrote no such values.
    """
    kinds: dict[Any, type[Stopping]] = {"negative-binomial": NegativeBinomial, "poisson": Poisson}
    parameters = {name: value for name, value in values.items() if name != "distribution"}
    known = values.get("distribution")
    expect(known in kinds, "distribution", known, "one of " + ", ".join(kinds))
    return kinds[known](**parameters)


def _delta(orders: np.ndarray, base: np.ndarray, epsilon: float) -> float:
    """A δ that a mechanism with this Rényi curve has at `epsilon`.

    The smaller of Proposition 12 of Canonne, Kamath and Steinke 2020, at its best order, and of
    the bound on total variation by the divergence of order 1 (Bretagnolle and Huber 1979).
    """
    exponents = (orders - 1) * (base - epsilon + np.log1p(-1 / orders)) - np.log(orders)
    variation = math.sqrt(-math.expm1(-float(base.min())))
    return min(math.exp(min(float(exponents.min()), 0.0)), variation)


def _expect_mean(mean: float) -> None:
    expect(
        is_real(mean) and FEWEST_RUNS <= mean <= MOST_RUNS,
        "expected_runs",
        mean,
        f"from {FEWEST_RUNS} to {MOST_RUNS}",
    )


def _root(excess: Callable[[float], float], low: float, high: float) -> float:
    return optimize.root_scalar(excess, bracket=(low, high), xtol=1e-12).root


def _a_little_more(value: float) -> float:
    """Above what a few roundings may have left too small."""
    return value * (1 + 2.0**-48)
