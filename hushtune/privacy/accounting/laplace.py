"""ε of Laplace noise: closed forms for pure ε, privacy loss distributions when δ is above 0."""

import math
from dataclasses import dataclass
from functools import cached_property

from hushtune.privacy.accounting.composition import PrivacyLossCurve, Repeated
from hushtune.privacy.accounting.pairs import LaplaceAddOrRemove

# Half a unit in the last place, relative; results are raised by a multiple of it.
_ROUNDING = 2.0**-53


def _log_mixture(sampling_probability: float, loss: float) -> float:
    """log(1 − q + q·e^loss) to a few units in the last place, for a loss of either sign."""
    q = sampling_probability
    if loss > 700:
        return loss + math.log(q + (1 - q) * math.exp(-loss))
    change = q * math.expm1(loss)
    if change < -0.5:
        # Near log(0) the sum of the two parts is exact where 1 + change would round.
        return math.log((1 - q) + q * math.exp(loss)) if q < 1 else loss
    return math.log1p(change)


@dataclass(frozen=True)
class PureLaplace:
    """Pure ε of Laplace noise on a Poisson sample of L1-clipped vectors, for any K.

    With a = C/b, T steps cost T·log(1 + q·(e^a − 1)) when an example is added or removed, and
    T·log[(1 − q + q·e^a)/(1 − q + q·e^−a)] when it is replaced. Both are attained. Nothing is
    owed for the noise being integer, since a is the ratio of two integers.
    """

    noise_multiplier: float
    sampling_probability: float
    steps: int
    adjacency: str

    def epsilon(self, delta: float = 0.0) -> float:
        """ε, rounded up; it holds with every `delta`."""
        loss = math.nextafter(1 / self.noise_multiplier, math.inf)
        cost = _log_mixture(self.sampling_probability, loss)
        if self.adjacency == "replace-one":
            cost -= _log_mixture(self.sampling_probability, -loss)
        return self.steps * cost * (1 + 32 * _ROUNDING)

    rough_epsilon = epsilon


def pure_laplace_guess(
    epsilon: float, sampling_probability: float, steps: int, adjacency: str
) -> float:
    """The noise multiplier b/C for pure ε, exact to rounding: the inverse of `PureLaplace`."""
    share = epsilon / steps
    odds = (1 - sampling_probability) / sampling_probability
    if adjacency == "replace-one":
        # 1 − q + q·e^a = e^share·(1 − q + q·e^−a) is quadratic in e^a, solved by an arcsinh.
        if share > 1000:
            return 1 / (share + math.log1p(odds))
        return 1 / (share / 2 + math.asinh(odds * math.sinh(share / 2)))
    if share > 700:
        return 1 / (share - math.log(sampling_probability))
    return 1 / math.log1p(math.expm1(share) / sampling_probability)


@dataclass(frozen=True)
class SampledLaplace:
    """Laplace noise on a Poisson sample, one direction, add-or-remove-one, with δ above 0."""

    noise_multiplier: float
    sampling_probability: float
    steps: int
    delta: float

    @cached_property
    def _curve(self) -> PrivacyLossCurve:
        pair = LaplaceAddOrRemove(self.noise_multiplier, self.sampling_probability)
        return PrivacyLossCurve([Repeated(pair, self.steps)], self.delta)

    @cached_property
    def _pure(self) -> float:
        return PureLaplace(
            self.noise_multiplier, self.sampling_probability, self.steps, "add-or-remove-one"
        ).epsilon()

    def epsilon(self, delta: float) -> float:
        """An ε that holds with `delta`: less than 1 % above the smallest, at most the pure one."""
        return min(self._pure, self._curve.epsilon(delta)) if delta > 0 else self._pure

    def rough_epsilon(self, delta: float) -> float:
        """A quick ε that holds with `delta`, a little above the other."""
        return min(self._pure, self._curve.rough_epsilon(delta))
