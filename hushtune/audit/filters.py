"""From releases, and what each canary would add to them, to how likely each canary is in.

Two models of a release y, both with normal noise of a given size:

*Poisson samples* (`MatchedFilter`). Sums up the logarithms of

    P[y | canary j is in] / P[y | it is out]
        ≈ 1 − q + q·exp(v_jᵀ Σ⁻¹ (y − mean without j) − v_jᵀ Σ⁻¹ v_j / 2),

where mean and covariance Σ of the release are those of noise and of all canaries, weighted by how
likely the steps before have made it that they are in. That is the matched filter, with the other
canaries taken into account as they become known.

*Everybody in every step* (`Regression`). The releases are then linear in the coins, and the
posterior mean of all coins at once is a linear regression.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy import special

#: Log-odds are cut off here for the steps to come, so that no canary is taken for certain.
_SUREST = 30.0


@dataclass(frozen=True)
class Explanation:
    """Coins that explain the releases, and how well.

    Attributes:
        scores: (canaries,) float64; larger means "in".
        log_likelihood: of the releases, up to a constant that all explanations share.
        noise: assumed standard deviation of the noise on a released integer.
        probability: assumed q.
    """

    scores: np.ndarray
    log_likelihood: float
    noise: float
    probability: float


class MatchedFilter:
    """Log-odds of every canary, updated release by release.

    Args:
        canaries: how many there are.
        probability: assumed q, with which a unit is sampled.
        noise: assumed standard deviation of the noise on a released integer.
    """

    def __init__(self, canaries: int, probability: float, noise: float) -> None:
        self._probability = probability
        self._noise = noise
        self._log_odds = np.zeros(canaries)
        self._log_likelihood = 0.0

    def observe(self, released: np.ndarray, heads: np.ndarray, tails: np.ndarray) -> None:
        """Take one release into account.

        Args:
            released: (K,) float64.
            heads: (canaries, K) float64, what each adds if sampled and its coin fell heads.
            tails: the same for tails; zero where a canary is then absent.
        """
        q, count = self._probability, len(released)
        heads, tails = heads / self._noise, tails / self._noise
        likely = special.expit(np.clip(self._log_odds, -_SUREST, _SUREST))[:, None]
        means = q * (likely * heads + (1 - likely) * tails)
        covariance = np.eye(count) - means.T @ means
        covariance += q * (heads.T @ (likely * heads) + tails.T @ ((1 - likely) * tails))
        factor = np.linalg.cholesky(covariance)

        def whitened(vectors: np.ndarray) -> np.ndarray:
            return scipy.linalg.solve_triangular(factor, vectors.T, lower=True).T

        rest = whitened(released[None] / self._noise - means.sum(axis=0))[0]
        determinant = np.log(np.diag(factor)).sum() + count * math.log(self._noise)
        self._log_likelihood -= rest @ rest / 2 + determinant
        without = rest + whitened(means)
        evidence = self._evidence(whitened(heads), without)
        evidence -= self._evidence(whitened(tails), without)
        self._log_odds += evidence

    def _evidence(self, vectors: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(canaries,) log-likelihood of taking part with these whitened vectors or not at all."""
        exponent = (vectors * rest).sum(axis=1) - (vectors**2).sum(axis=1) / 2
        q = self._probability
        return np.logaddexp(math.log1p(-q) if q < 1 else -math.inf, math.log(q) + exponent)

    def explanations(self) -> list[Explanation]:
        """The one that there is."""
        return [Explanation(self._log_odds, self._log_likelihood, self._noise, self._probability)]


class Regression:
    """The coins' posterior if everybody takes part in every step.

    Args:
        canaries: how many there are.
        noises: standard deviations of the noise on a released integer to be tried.
    """

    def __init__(self, canaries: int, noises: Sequence[float]) -> None:
        self._noises = noises
        self._unit = noises[0]
        self._gram = np.zeros((canaries, canaries))
        self._products = np.zeros(canaries)
        self._squares = 0.0
        self._count = 0

    def observe(self, released: np.ndarray, heads: np.ndarray, tails: np.ndarray) -> None:
        """Take one release into account; see `MatchedFilter.observe`."""
        differences = (heads - tails) / self._unit
        rest = (released - (heads + tails).sum(axis=0) / 2) / self._unit
        self._gram += differences @ differences.T
        self._products += differences @ rest
        self._squares += float(rest @ rest)
        self._count += len(released)

    def explanations(self) -> list[Explanation]:
        """One for every amount of noise."""
        return [self._at(noise) for noise in self._noises]

    def _at(self, noise: float) -> Explanation:
        # Coins as ±1/2: mean 0 and variance 1/4.
        precision = (self._unit / noise) ** 2
        factor = np.linalg.cholesky(np.eye(len(self._gram)) + precision / 4 * self._gram)
        means = scipy.linalg.cho_solve((factor, True), precision / 4 * self._products)
        fit = precision * (self._squares - self._products @ means) / 2
        determinant = np.log(np.diag(factor)).sum() + self._count * math.log(noise)
        return Explanation(means, float(-fit - determinant), noise, 1.0)
