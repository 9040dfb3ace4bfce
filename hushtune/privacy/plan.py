"""The plan: sampling, clip, noise and number of steps, bound together before the first step.

What runs and what is accounted are read from this one object. It holds public values only.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from hushtune.privacy import accounting
from hushtune.privacy.accounting.search import PrivateSearch, Training
from hushtune.privacy.sampling import representable_probability

Mechanism = Literal["gaussian", "laplace"]
Combine = Literal["mean", "sum"]
Adjacency = Literal["add-or-remove-one", "replace-one"]

#: The integer noise scale is at least this, which makes the cost of discretisation negligible.
SMALLEST_NOISE_SCALE = 2**32


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """A fixed number of Poisson-sampled, clipped and noised releases of K integers each.

    Attributes:
        mechanism: "gaussian" (L2 clip, (ε, δ)) or "laplace" (L1 clip, pure ε when δ is 0).
        delta: δ of the guarantee; 0 only for "laplace".
        adjacency: which data sets count as neighbours.
        unit: what is protected: "example", or the name of the column that names a unit.
        combine: how the rows of a unit become one vector before the clip.
        population: n, the number of units; public, and the same for neighbouring data sets.
        sampling_probability: q, a multiple of 2^-32.
        steps: T, the number of releases that the guarantee covers.
        directions: K, the number of integers a release holds.
        clip_norm: C, the bound on a unit's vector, on the scale of loss per unit of direction.
        grid: the width of one integer step, a power of two.
        sensitivity: Δ = floor(C / grid), the bound on a unit's integer vector.
        noise_scale: s, the integer scale of the discrete noise; s/Δ is what is accounted.
        search: the search that chose this run, if one did; the guarantee is the search's then.
    """

    mechanism: Mechanism
    delta: float
    adjacency: Adjacency
    unit: str
    combine: Combine
    population: int
    sampling_probability: float
    steps: int
    directions: int
    clip_norm: float
    grid: float
    sensitivity: int
    noise_scale: int
    search: PrivateSearch | None = None

    def __post_init__(self) -> None:
        for name in ("population", "steps", "directions", "sensitivity", "noise_scale"):
            value = getattr(self, name)
            require(type(value) is int, name, value, "an integer")
        require(
            self.adjacency in typing.get_args(Adjacency),
            "adjacency",
            self.adjacency,
            " or ".join(typing.get_args(Adjacency)),
        )
        require(self.combine in typing.get_args(Combine), "combine", self.combine, "mean or sum")
        require(0 <= self.delta < 1, "delta", self.delta, "at least 0 and below 1")
        require(
            self.mechanism in ("gaussian", "laplace"),
            "mechanism",
            self.mechanism,
            "gaussian or laplace",
        )
        require(self.population >= 1, "population", self.population, "at least 1")
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.directions >= 1, "directions", self.directions, "at least 1")
        require(
            representable_probability(self.sampling_probability) == self.sampling_probability,
            "sampling_probability",
            self.sampling_probability,
            "a multiple of 2^-32",
        )
        require(math.frexp(self.grid)[0] == 0.5, "grid", self.grid, "a power of two")
        require_clip_norm(self.clip_norm)
        require(
            1 <= self.sensitivity <= self.clip_norm / self.grid < self.sensitivity + 1 <= 2**53,
            "sensitivity",
            self.sensitivity,
            "floor(clip_norm / grid), from 1 and below 2^53",
        )
        require(
            SMALLEST_NOISE_SCALE <= self.noise_scale < 2**53,
            "noise_scale",
            self.noise_scale,
            "from 2^32 up to 2^53",
        )
        # Beyond 64 standard deviations the noise never goes, so the sum cannot overflow int64.
        require(
            self.population * self.sensitivity + 64 * self.noise_scale < 2**63,
            "population",
            self.population,
            "small enough that population * sensitivity + 64 * noise_scale stays below 2^63",
        )
        if self.search is not None:
            accepted = "add-or-remove-one with a search"
            require(self.adjacency == "add-or-remove-one", "adjacency", self.adjacency, accepted)

    @classmethod
    def for_epsilon(
        cls,
        *,
        epsilon: float,
        delta: float,
        mechanism: Mechanism,
        adjacency: Adjacency,
        unit: str,
        combine: Combine,
        population: int,
        expected_units: float,
        steps: int,
        directions: int,
        clip_norm: float,
        search: PrivateSearch | None = None,
    ) -> PrivacyPlan:
        """The plan with the least noise whose ε is at most `epsilon`.

        Args:
            expected_units: the expected number of units a step; q = expected_units / population,
                rounded up to a multiple of 2^-32.
            search: calibrated to that ε, where the run is one of a search's; its noise is taken.

        Raises:
            ValueError: if a value is out of range; the message names it and what is accepted.
        """
        require(population >= 1, "population", population, "at least 1")
        require(
            0 < expected_units <= population,
            "batch",
            expected_units,
            f"above 0 and at most the number of units, {population}",
        )
        require(
            delta < 1 / population,
            "delta",
            delta,
            f"below 1 / number of units = {1 / population:.3g}",
        )
        probability = representable_probability(expected_units / population)
        if search is not None:
            training = Training(probability, steps, directions)
            noise_multiplier = search.training(training).noise_multiplier
        else:
            noise_multiplier = accounting.calibrate(
                mechanism=mechanism,
                epsilon=epsilon,
                delta=delta,
                sampling_probability=probability,
                steps=steps,
                adjacency=adjacency,
                directions=directions,
            )
        return cls.with_noise(
            noise_multiplier=noise_multiplier,
            mechanism=mechanism,
            delta=delta,
            adjacency=adjacency,
            unit=unit,
            combine=combine,
            population=population,
            sampling_probability=probability,
            steps=steps,
            directions=directions,
            clip_norm=clip_norm,
            search=search,
        )

    @classmethod
    def with_noise(cls, *, noise_multiplier: float, clip_norm: float, **rest: Any) -> PrivacyPlan:
        """The plan with a given noise multiplier, rounded up to what integers can express."""
        require(
            2.0**-20 <= noise_multiplier < 2.0**28,
            "noise_multiplier",
            noise_multiplier,
            "from 2^-20 up to 2^28",
        )
        require_clip_norm(clip_norm)
        # The smallest sensitivity with sensitivity * noise_multiplier >= 2^32, at least 2^24 so
        # that truncation onto the grid costs nothing in accuracy.
        wanted = max(SMALLEST_NOISE_SCALE / noise_multiplier, 2.0**24)
        grid = 2.0 ** math.floor(math.log2(clip_norm / wanted))
        sensitivity = math.floor(clip_norm / grid)
        # In fractions: a float product may be rounded down onto an integer below the true one.
        exact = math.ceil(Fraction(noise_multiplier) * sensitivity)
        noise_scale = max(exact, SMALLEST_NOISE_SCALE)
        return cls(
            clip_norm=clip_norm, grid=grid, sensitivity=sensitivity, noise_scale=noise_scale, **rest
        )

    @property
    def noise_multiplier(self) -> float:
        """σ/C (Gaussian) or b/C (Laplace) as it runs: s/Δ, rounded down to a float."""
        quotient = self.noise_scale / self.sensitivity
        if Fraction(quotient) * self.sensitivity > self.noise_scale:
            quotient = math.nextafter(quotient, 0.0)
        return quotient

    @property
    def expected_units(self) -> float:
        """q·n, the constant that every sum is divided by."""
        return self.sampling_probability * self.population

    @property
    def bytes_a_number(self) -> int:
        """Bytes of a signed integer that holds any sum with its noise; from 5 to 8."""
        largest = self.population * self.sensitivity + 64 * self.noise_scale
        return (largest.bit_length() + 8) // 8

    @property
    def noise_of_mean(self) -> float:
        """Standard deviation of the noise on a released mean slope, in units of the loss slope."""
        deviations = 1.0 if self.mechanism == "gaussian" else math.sqrt(2.0)
        return deviations * self.noise_scale * self.grid / self.expected_units

    @property
    def phase(self) -> accounting.Phase:
        """The plan's steps alone, for adding up with others, under whichever adjacency."""
        return accounting.Phase(
            mechanism=self.mechanism,
            noise_multiplier=self.noise_multiplier,
            sampling_probability=self.sampling_probability,
            steps=self.steps,
            directions=self.directions,
            noise_scale_integer=self.noise_scale,
        )

    def epsilon(self, steps: int | None = None) -> float:
        """ε after `steps` releases (default: all that are planned); of all of a search, always.

        Raises:
            ValueError: if the plan is none of those that its search accounts for.
        """
        if self.search is not None:
            accepted = "that of a search which accounts for this plan"
            require(self.search.covers(self.phase), "search", self.search.to_json(), accepted)
            return self.search.epsilon(self.delta)
        return accounting.epsilon(
            mechanism=self.mechanism,
            noise_multiplier=self.noise_multiplier,
            sampling_probability=self.sampling_probability,
            steps=self.steps if steps is None else steps,
            delta=self.delta,
            adjacency=self.adjacency,
            directions=self.directions,
            noise_scale_integer=self.noise_scale,
        )

    @property
    def alone(self) -> PrivacyPlan:
        """The run's own steps, outside of any search."""
        return dataclasses.replace(self, search=None)

    def norm(self, vectors: np.ndarray) -> np.ndarray:
        """(units, 1) float64 norms of the rows of (units, K): L2 for Gaussian, L1 for Laplace."""
        order = 2 if self.mechanism == "gaussian" else 1
        return np.linalg.norm(vectors, ord=order, axis=1, keepdims=True)

    def admits(self, vector: Sequence[int], *, units: int = 1) -> bool:
        """Whether an integer vector can be that of a unit, or the sum of so many units' vectors.

        In Python integers, so exact.
        """
        longest = units * self.sensitivity
        if self.mechanism == "gaussian":
            return sum(value * value for value in vector) <= longest**2
        return sum(abs(value) for value in vector) <= longest

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values, for the ledger's header."""
        values = dataclasses.asdict(self)
        del values["search"]
        return values if self.search is None else values | {"search": self.search.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PrivacyPlan:
        """The plan that `to_json` wrote, validated again."""
        if "search" not in values:
            return cls(**values)
        return cls(**{**values, "search": PrivateSearch.from_json(values["search"])})


def require_clip_norm(clip_norm: float) -> None:
    """Refuse clips whose grid would leave the range of float64."""
    require(2.0**-512 <= clip_norm <= 2.0**512, "clip_norm", clip_norm, "from 2^-512 up to 2^512")


def require(holds: bool, name: str, value: object, accepted: str) -> None:
    """Every refused value speaks in the same voice: its name, what it is, what is accepted."""
    if not holds:
        raise ValueError(f"Expected {name}={value!r} to be {accepted}.")
