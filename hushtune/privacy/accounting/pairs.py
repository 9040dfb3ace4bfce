"""One step of each sampled mechanism, as its dominating pair of distributions on the line.

A Poisson-sampled sum with additive noise is, in the worst case, no more revealing than a pair of
mixtures of the noise at 0 and at plus or minus the clipping norm (Zhu, Dong and Wang 2022,
Theorem 11 and Proposition 30; replace-one: the antipodal pair that dp-accounting composes for
`REPLACE_ONE`). A mechanism of which only (ε, δ) is known is dominated by randomised response that
fails with probability δ (Kairouz, Oh and Viswanath 2015). Distances are in units of
the clipping norm. In each pair the privacy loss log(upper / lower) grows with the position, so
that a grid of losses is a grid of positions and the mass of every cell has a closed form.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special


class Pair(Protocol):
    """What the discretisation asks of a dominating pair."""

    @property
    def symmetric(self) -> bool:
        """Whether exchanging the two distributions changes nothing."""
        raise NotImplementedError

    def positions(self, log_tail: float) -> np.ndarray:
        """Increasing positions; both distributions have at most exp(log_tail) beyond either end.

        Close enough together for sums over their cells to stand for integrals, shape (positions,).
        """
        raise NotImplementedError

    def loss(self, position: np.ndarray) -> np.ndarray:
        """The privacy loss at these positions."""
        raise NotImplementedError

    def position(self, loss: np.ndarray) -> np.ndarray:
        """Where the privacy loss takes these values; infinite where it never does."""
        raise NotImplementedError

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mass of the upper and of the lower distribution between consecutive positions."""
        raise NotImplementedError


def _mixed_loss(shift_loss: np.ndarray, sampling_probability: float) -> np.ndarray:
    """log(1 − q + q·e^t), accurate near 0 and without overflow."""
    with np.errstate(divide="ignore"):
        absent, present = np.log1p(-sampling_probability), np.log(sampling_probability) + shift_loss
    change = sampling_probability * np.expm1(np.clip(shift_loss, -700.0, 500.0))
    near_zero = (change > -0.5) & (shift_loss < 500.0)
    return np.where(near_zero, np.log1p(np.maximum(change, -0.5)), np.logaddexp(absent, present))


def _unmixed_loss(loss: np.ndarray, sampling_probability: float) -> np.ndarray:
    """The t with log(1 − q + q·e^t) = loss; minus infinity where there is none.

    Its error, carried back to the loss, is a few units in the last place of loss − log q.
    """
    small = np.expm1(np.minimum(loss, 500.0)) / sampling_probability
    with np.errstate(divide="ignore"):
        # Far below, e^loss − (1 − q) is taken as a difference of exponents, which do not cancel.
        share = -np.expm1(np.minimum(np.log1p(-sampling_probability) - loss, 0.0))
        far = loss + np.log(share) - np.log(sampling_probability)
        return np.where((small > -0.5) & (loss < 500.0), np.log1p(np.maximum(small, -0.5)), far)


def _normal_masses(edges: np.ndarray) -> np.ndarray:
    """Standard normal mass between consecutive edges, accurate in both tails."""
    left, right = edges[:-1], edges[1:]
    return np.where(
        left > 0,
        special.ndtr(-left) - special.ndtr(-right),
        special.ndtr(right) - special.ndtr(left),
    )


def _laplace_masses(edges: np.ndarray) -> np.ndarray:
    """Standard Laplace mass between consecutive edges, accurate for narrow cells."""
    left, right = edges[:-1], edges[1:]
    width = np.where(left < right, right, 1.0) - np.where(left < right, left, 1.0)
    one_sided = -0.5 * np.exp(-np.minimum(np.abs(left), np.abs(right))) * np.expm1(-width)
    around_zero = 1.0 - 0.5 * np.exp(np.minimum(left, 0.0)) - 0.5 * np.exp(-np.maximum(right, 0.0))
    return np.where((left < 0) & (right > 0), around_zero, one_sided)


# Cells for sums that stand for integrals. Twelve standard deviations either side of two means,
# a few thousandths of a standard deviation apart, give moments to five digits.
_CELLS = 4096


@dataclass(frozen=True)
class GaussianAddOrRemove:
    """(1 − q)·N(0, σ²) + q·N(1, σ²) against N(0, σ²); exchanged, it is the pair for adding."""

    noise_multiplier: float
    sampling_probability: float

    @property
    def symmetric(self) -> bool:
        return self.sampling_probability == 1

    def loss(self, position: np.ndarray) -> np.ndarray:
        shift_loss = (position - 0.5) / self.noise_multiplier**2
        return _mixed_loss(shift_loss, self.sampling_probability)

    def positions(self, log_tail: float) -> np.ndarray:
        reach = -self.noise_multiplier * special.ndtri_exp(log_tail)
        return np.linspace(-reach, 1.0 + reach, _CELLS + 1)

    def position(self, loss: np.ndarray) -> np.ndarray:
        return 0.5 + self.noise_multiplier**2 * _unmixed_loss(loss, self.sampling_probability)

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        absent = _normal_masses(edges / self.noise_multiplier)
        present = _normal_masses((edges - 1.0) / self.noise_multiplier)
        q = self.sampling_probability
        return (1 - q) * absent + q * present, absent


@dataclass(frozen=True)
class GaussianReplace:
    """(1 − q)·N(0, σ²) + q·N(1, σ²) against (1 − q)·N(0, σ²) + q·N(−1, σ²)."""

    noise_multiplier: float
    sampling_probability: float
    symmetric = True

    def loss(self, position: np.ndarray) -> np.ndarray:
        variance = self.noise_multiplier**2
        q = self.sampling_probability
        return _mixed_loss((position - 0.5) / variance, q) - _mixed_loss(
            (-position - 0.5) / variance, q
        )

    def positions(self, log_tail: float) -> np.ndarray:
        reach = 1.0 - self.noise_multiplier * special.ndtri_exp(log_tail)
        return np.linspace(-reach, reach, _CELLS + 1)

    def position(self, loss: np.ndarray) -> np.ndarray:
        # With u = x/σ² the loss ℓ satisfies sinh(u − ℓ/2) = (1 − q)/q · e^{1/2σ²} · sinh(ℓ/2).
        # The right-hand side is kept as a logarithm: for little noise it overflows.
        variance = self.noise_multiplier**2
        q = self.sampling_probability
        half = np.abs(loss) / 2
        with np.errstate(divide="ignore"):
            log_sinh = np.where(
                half < 1.0,
                np.log(np.sinh(np.minimum(half, 1.0))),
                half + np.log(-np.expm1(-2 * half) / 2),
            )
        log_side = np.log1p(-q) - np.log(q) + 0.5 / variance + log_sinh
        inverse = np.where(
            log_side < 300.0, np.arcsinh(np.exp(np.minimum(log_side, 300.0))), log_side + np.log(2)
        )
        return variance * np.sign(loss) * (half + inverse)

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        absent = _normal_masses(edges / self.noise_multiplier)
        above = _normal_masses((edges - 1.0) / self.noise_multiplier)
        below = _normal_masses((edges + 1.0) / self.noise_multiplier)
        q = self.sampling_probability
        return (1 - q) * absent + q * above, (1 - q) * absent + q * below


@dataclass(frozen=True)
class LaplaceAddOrRemove:
    """(1 − q)·Lap(0, b) + q·Lap(1, b) against Lap(0, b), for a single direction."""

    noise_multiplier: float
    sampling_probability: float
    symmetric = False

    def loss(self, position: np.ndarray) -> np.ndarray:
        shift_loss = (2 * np.clip(position, 0.0, 1.0) - 1.0) / self.noise_multiplier
        return _mixed_loss(shift_loss, self.sampling_probability)

    def positions(self, log_tail: float) -> np.ndarray:
        # The loss does not change outside [0, 1]: nothing is cut off, whatever would be allowed.
        return np.concatenate([[-np.inf], np.linspace(0.0, 1.0, _CELLS + 1)[1:-1], [np.inf]])

    def position(self, loss: np.ndarray) -> np.ndarray:
        shift_loss = _unmixed_loss(loss, self.sampling_probability)
        inside = 0.5 * (1.0 + self.noise_multiplier * shift_loss)
        lowest, highest = self.loss(np.array([0.0, 1.0]))
        return np.where(loss <= lowest, -np.inf, np.where(loss >= highest, np.inf, inside))

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        absent = _laplace_masses(edges / self.noise_multiplier)
        present = _laplace_masses((edges - 1.0) / self.noise_multiplier)
        q = self.sampling_probability
        return (1 - q) * absent + q * present, absent


@dataclass(frozen=True)
class RandomisedResponse:
    """Losses of ±ε, and of infinity with probability δ: no (ε, δ) mechanism reveals more.

    Its four outcomes are at positions −2 (the lower distribution fails), −1, 1 and 2 (the upper
    one fails).
    """

    epsilon: float
    delta: float
    symmetric = True

    def positions(self, log_tail: float) -> np.ndarray:
        return np.array([-1.5, 1.5])

    def loss(self, position: np.ndarray) -> np.ndarray:
        return self.epsilon * np.sign(position)

    def position(self, loss: np.ndarray) -> np.ndarray:
        return np.where(loss <= -self.epsilon, -1.5, np.where(loss >= self.epsilon, 1.5, 0.0))

    def masses(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        likely = (1 - self.delta) / (1 + np.exp(-self.epsilon))
        unlikely = (1 - self.delta) / (1 + np.exp(self.epsilon))
        inner = np.array([unlikely, likely])
        return (
            self._between(edges, np.array([0.0, *inner, self.delta])),
            self._between(edges, np.array([self.delta, *inner[::-1], 0.0])),
        )

    def _between(self, edges: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
        reached = np.searchsorted(np.array([-2.0, -1.0, 1.0, 2.0]), edges)
        return np.add.reduce(
            [
                np.where((reached[:-1] <= outcome) & (outcome < reached[1:]), mass, 0.0)
                for outcome, mass in enumerate(outcomes)
            ]
        )
