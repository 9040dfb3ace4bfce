"""The two mechanisms, each with everything that accounting asks of it in one place."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from hushtune.privacy.accounting.discretisation import Drawn, integer_epsilon
from hushtune.privacy.accounting.gaussian import FullBatchGaussian, SampledGaussian, gaussian_guess
from hushtune.privacy.accounting.laplace import PureLaplace, SampledLaplace, pure_laplace_guess


@dataclass(frozen=True)
class Terms:
    """All of a guarantee but its noise and its ε; validated, so that it can be relied on."""

    mechanism: str
    sampling_probability: float
    steps: int
    delta: float
    adjacency: str
    directions: int

    @property
    def coordinates(self) -> int:
        """How many numbers are released over all steps."""
        return self.steps * self.directions


class Curve(Protocol):
    """ε as a function of δ for given noise."""

    def epsilon(self, delta: float) -> float:
        """An ε that holds with `delta`."""
        raise NotImplementedError

    def rough_epsilon(self, delta: float) -> float:
        """The same in less time, perhaps a little larger."""
        raise NotImplementedError


class Mechanism(Protocol):
    """A kind of noise: its ε as a function of δ, the charge for integers, and an inverse."""

    def curve(self, terms: Terms, noise_multiplier: float) -> Curve:
        """ε as a function of δ, with continuous noise."""
        raise NotImplementedError

    def integer_epsilon(
        self, terms: Terms, epsilon_at: Callable[[float], float], scale: int
    ) -> float:
        """ε with integer noise of this scale, from ε with continuous noise."""
        raise NotImplementedError

    def guess(self, terms: Terms, epsilon: float) -> float:
        """About the noise multiplier for ε."""
        raise NotImplementedError

    def is_closed_form(self, terms: Terms) -> bool:
        """Whether the guess is exact to rounding."""
        raise NotImplementedError


class Gaussian:
    """Gaussian noise; noise multiplier σ/C."""

    def curve(self, terms: Terms, noise_multiplier: float) -> Curve:
        if self.is_closed_form(terms):
            return FullBatchGaussian(noise_multiplier, terms.steps, terms.adjacency)
        return SampledGaussian(
            noise_multiplier, terms.sampling_probability, terms.steps, terms.delta, terms.adjacency
        )

    def integer_epsilon(
        self, terms: Terms, epsilon_at: Callable[[float], float], scale: int
    ) -> float:
        drawn = Drawn("gaussian", terms.coordinates, scale)
        return integer_epsilon(epsilon_at, terms.delta, [drawn])

    def guess(self, terms: Terms, epsilon: float) -> float:
        return gaussian_guess(
            epsilon, terms.delta, terms.sampling_probability, terms.steps, terms.adjacency
        )

    def is_closed_form(self, terms: Terms) -> bool:
        return terms.sampling_probability == 1


class Laplace:
    """Laplace noise; noise multiplier b/C. Pure ε if δ is 0."""

    def curve(self, terms: Terms, noise_multiplier: float) -> Curve:
        if self.is_closed_form(terms):
            return PureLaplace(
                noise_multiplier, terms.sampling_probability, terms.steps, terms.adjacency
            )
        return SampledLaplace(
            noise_multiplier, terms.sampling_probability, terms.steps, terms.delta
        )

    def integer_epsilon(
        self, terms: Terms, epsilon_at: Callable[[float], float], scale: int
    ) -> float:
        if self.is_closed_form(terms):
            return epsilon_at(0.0)
        drawn = Drawn("laplace", terms.coordinates, scale)
        return min(epsilon_at(0.0), integer_epsilon(epsilon_at, terms.delta, [drawn]))

    def guess(self, terms: Terms, epsilon: float) -> float:
        pure = pure_laplace_guess(epsilon, terms.sampling_probability, terms.steps, terms.adjacency)
        if self.is_closed_form(terms):
            return pure
        # Over many steps the loss is nearly normal, that of a Gaussian with σ about b.
        return min(
            pure,
            gaussian_guess(
                epsilon, terms.delta, terms.sampling_probability, terms.steps, terms.adjacency
            ),
        )

    def is_closed_form(self, terms: Terms) -> bool:
        return terms.delta == 0


MECHANISMS: dict[str, Mechanism] = {"gaussian": Gaussian(), "laplace": Laplace()}


@lru_cache(maxsize=256)
def plan_epsilon(terms: Terms, noise_multiplier: float, scale: int | None) -> float:
    """ε of a plan, with what integer noise costs if its scale is given."""
    mechanism = MECHANISMS[terms.mechanism]
    curve = mechanism.curve(terms, noise_multiplier)
    if scale is None:
        return float(curve.epsilon(terms.delta))
    return float(mechanism.integer_epsilon(terms, curve.epsilon, scale))
