"""ε of Gaussian noise: a closed form for full batches, privacy loss distributions for samples."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from scipy import special

from hushtune.privacy.accounting.composition import PrivacyLossCurve, Repeated
from hushtune.privacy.accounting.pairs import GaussianAddOrRemove, GaussianReplace

# Replacing an example moves the sum by up to twice the clipping norm.
SHIFT = {"add-or-remove-one": 1.0, "replace-one": 2.0}


def _log_delta(epsilon: float, mu: float) -> float:
    """log δ(ε) between N(0, 1) and N(μ, 1), without cancellation.

    δ(ε) = Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ) (Balle and Wang 2018, Theorem 8; Dong, Roth and Su
    2022, Corollary 2.13). Both terms share the density φ(μ/2 − ε/μ), which leaves a difference of
    Mills ratios.
    """
    near = epsilon / mu - mu / 2
    far = near + mu
    if near < -5.0:
        # δ is close to 1: the second term is the small one.
        return math.log1p(
            -special.ndtr(near) - math.exp(min(epsilon + special.log_ndtr(-far), 0.0))
        )
    root = math.sqrt(0.5)
    difference = special.erfcx(near * root) - special.erfcx(far * root)
    if difference <= 0:
        return -math.inf
    return math.log(difference / 2) - near * near / 2


def _excess(epsilon: float, mu: float, delta: float) -> float:
    """How far log δ(ε) is above what is allowed; kept finite for root finding."""
    return max(_log_delta(epsilon, mu), -1e300) - math.log(delta)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The smallest ε for μ-Gaussian differential privacy at δ, never rounded down.

    Args:
        mu: distance of the two means in standard deviations, above 0.
        delta: the δ of the guarantee, above 0 and below 1.
    """
    # What cancellation can take from log δ: of the Mills ratios if μ is small, of their arguments
    # if it is large.
    allowed = delta * (1 - min(1e-14 * (1 + mu + 1 / mu), 0.5))
    if _excess(0.0, mu, allowed) <= 0:
        return 0.0
    # δ(ε) ≤ P(loss > ε) ≤ exp(−(ε/μ − μ/2)²/2) for ε above the mean loss μ²/2.
    highest = mu * mu / 2 + mu * math.sqrt(-2 * math.log(allowed))
    return _bisect(lambda epsilon: _excess(epsilon, mu, allowed) <= 0, 0.0, highest) * (1 + 1e-13)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest μ, to rounding, for which μ-Gaussian differential privacy gives (ε, δ)."""
    private = 1.0
    while _excess(epsilon, private, delta) > 0:
        private /= 2
    exposed = 2 * private
    while _excess(epsilon, exposed, delta) <= 0:
        private, exposed = exposed, 2 * exposed
    return _bisect(lambda mu: _excess(epsilon, mu, delta) <= 0, exposed, private)


def _bisect(holds: Callable[[float], bool], fails_at: float, holds_at: float) -> float:
    """Where `holds` turns true between the two points, to rounding, on the side where it does."""
    while abs(holds_at - fails_at) > 1e-15 * holds_at:
        middle = (fails_at + holds_at) / 2
        if middle in (fails_at, holds_at):
            break
        if holds(middle):
            holds_at = middle
        else:
            fails_at = middle
    return holds_at


@dataclass(frozen=True)
class FullBatchGaussian:
    """Gaussian noise with every example in every step: exactly μ-Gaussian differential privacy.

    μ = √T/σ for add-or-remove-one and 2√T/σ for replace-one (Dong, Roth and Su 2022).
    """

    noise_multiplier: float
    steps: int
    adjacency: str

    def epsilon(self, delta: float) -> float:
        """The smallest ε that holds with `delta`."""
        return gaussian_epsilon(
            SHIFT[self.adjacency] * math.sqrt(self.steps) / self.noise_multiplier, delta
        )

    rough_epsilon = epsilon


@dataclass(frozen=True)
class SampledGaussian:
    """Gaussian noise on a Poisson sample, composed by privacy loss distributions."""

    noise_multiplier: float
    sampling_probability: float
    steps: int
    delta: float
    adjacency: str

    @cached_property
    def _curve(self) -> PrivacyLossCurve:
        pairs = {"add-or-remove-one": GaussianAddOrRemove, "replace-one": GaussianReplace}
        pair = pairs[self.adjacency](self.noise_multiplier, self.sampling_probability)
        return PrivacyLossCurve([Repeated(pair, self.steps)], self.delta)

    def epsilon(self, delta: float) -> float:
        """An ε that holds with `delta`, less than 1 % above the smallest."""
        return self._curve.epsilon(delta)

    def rough_epsilon(self, delta: float) -> float:
        """A quick ε that holds with `delta`, a little above the other."""
        return self._curve.rough_epsilon(delta)


def gaussian_guess(
    epsilon: float, delta: float, sampling_probability: float, steps: int, adjacency: str
) -> float:
    """About the noise multiplier for (ε, δ); exact to rounding for full batches.

    For samples it is the central limit of Bu, Dong, Long and Su 2020, which under-reports ε: a
    point to start a search from, never a guarantee.
    """
    mu = gaussian_mu(epsilon, delta) / SHIFT[adjacency]
    if sampling_probability == 1:
        return math.sqrt(steps) / mu
    return math.log1p(mu**2 / (sampling_probability**2 * steps)) ** -0.5
