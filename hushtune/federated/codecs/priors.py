"""What an update looks like before any is seen: independent normal numbers, layer by layer.

A prior comes from public data, from updates that were released already, or from the noised mean of
`moments` over units. Moments are private values until they have passed the boundary.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hushtune.federated.codecs.layers import Layer, require_layers, slices_of
from hushtune.federated.codecs.moments import estimate, moments
from hushtune.privacy.plan import require

__all__ = ["Layer", "Prior", "moments"]


@dataclass(frozen=True)
class Prior:
    """The numbers of layer l are independent and normal, with mean μ_l and standard deviation σ_l.

    Attributes:
        layers: in the order in which an update holds them.
        means: (L,) μ, finite.
        deviations: (L,) σ, positive and finite.

    Raises:
        ValueError: if there is no layer, names repeat, lengths differ or a value is out of range.
    """

    layers: tuple[Layer, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def __post_init__(self) -> None:
        require_layers(self.layers)
        for name in ("means", "deviations"):
            values = getattr(self, name)
            fits = len(values) == len(self.layers) and all(map(math.isfinite, values))
            require(fits, name, values, f"{len(self.layers)} finite numbers, one a layer")
        require(min(self.deviations) > 0, "deviations", self.deviations, "positive")

    @classmethod
    def from_moments(
        cls,
        mean_moments: np.ndarray,
        clip_norm: float,
        layers: Sequence[Layer],
        noise: float = 0.0,
    ) -> Prior:
        """The prior of updates with these moments, usable whatever the noise did.

        Args:
            mean_moments: (2L,) the released mean of `moments` over units.
            clip_norm: C, as given to `moments`.
            layers: as given to `moments`.
            noise: standard deviation of the noise on each of `mean_moments`.

        Raises:
            ValueError: if there are not 2L moments, or another value is out of range.
        """
        means, deviations = estimate(mean_moments, clip_norm, layers, noise)
        return cls(tuple(layers), means, deviations)

    @property
    def dimension(self) -> int:
        """d, the length of an update."""
        return self.slices[-1].stop

    @functools.cached_property
    def slices(self) -> tuple[slice, ...]:
        """(L,) where an update holds each layer."""
        return slices_of(self.layers)

    @functools.cached_property
    def mean(self) -> np.ndarray:
        """(d,) float64 μ of every number, read-only."""
        return self._of_numbers(self.means)

    @functools.cached_property
    def deviation(self) -> np.ndarray:
        """(d,) float64 σ of every number, read-only."""
        return self._of_numbers(self.deviations)

    @functools.cached_property
    def energies(self) -> tuple[float, ...]:
        """(L,) the expected square of a number of each layer, μ² + σ²."""
        pairs = zip(self.means, self.deviations, strict=True)
        return tuple(mean * mean + deviation * deviation for mean, deviation in pairs)

    @property
    def energy(self) -> float:
        """The expected squared length of an update."""
        pairs = zip(self.layers, self.energies, strict=True)
        return math.fsum(layer.size * energy for layer, energy in pairs)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count, d) float64 synthetic updates, from a public generator."""
        return self.mean + self.deviation * rng.standard_normal((count, self.dimension))

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes an equal prior."""
        return {
            "layers": [list(layer) for layer in self.layers],
            "means": list(self.means),
            "deviations": list(self.deviations),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Prior:
        """The prior that `to_json` wrote."""
        layers = tuple(Layer(*layer) for layer in value["layers"])
        return cls(layers, tuple(value["means"]), tuple(value["deviations"]))

    def _of_numbers(self, of_layers: tuple[float, ...]) -> np.ndarray:
        numbers = np.repeat(of_layers, [layer.size for layer in self.layers])
        numbers.flags.writeable = False
        return numbers
