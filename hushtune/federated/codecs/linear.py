"""The default codec: a seeded orthonormal projection by layer, and the best linear decoder.

With code y = P·ḡ + ξ, where ḡ has mean μ and covariance Σ and ξ has standard deviation τ, the
linear estimate of ḡ with the least mean square error is

    ĝ = μ + Σ·Pᵀ·(P·Σ·Pᵀ + τ²·I)⁻¹·(y − P·μ)

A layer has Σ = σ²·I and P·Pᵀ = I, so that for each layer ĝ = μ + σ²/(σ² + τ²)·Pᵀ·(y − P·μ).

What is decoded is a *mean* of updates, while a prior describes one of them. If updates share the
part ρ of their variance and differ independently in the rest, a mean of n has the covariance
(ρ + (1 − ρ)/n)·Σ. Moments of single updates cannot tell ρ, so it is the user who may: `updates` is
the number 1/(ρ + (1 − ρ)/n) of independent updates that would average as much, and Σ is divided by
it. The default is 1, updates that agree. Noise that is shrunk too little averages out over rounds,
and the learning rate governs it; but n in place of 1 makes what updates share, which is what a
round is for, up to n times smaller.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hushtune.federated.codecs.base import by_row, checked_code
from hushtune.federated.codecs.priors import Prior
from hushtune.federated.codecs.projection import Projection
from hushtune.federated.codecs.randomness import Seed
from hushtune.federated.codecs.shares import split
from hushtune.privacy.plan import require


@dataclass(frozen=True)
class LinearCodec:
    """Projects each layer onto its share of the m numbers. Decoding is bit-identical everywhere.

    Attributes:
        prior: of one update.
        size: m, from the number of layers up to d.
        seed: public; any int or text.
        updates: how many independent updates average like the ones whose mean is decoded, from 1.

    Raises:
        ValueError: if a value is out of range.
    """

    prior: Prior
    size: int
    seed: Seed
    updates: float = 1.0

    kind: ClassVar[str] = "linear"
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        fewest, most = len(self.prior.layers), self.prior.dimension
        require(fewest <= self.size <= most, "size", self.size, f"from {fewest} to {most}")
        accepted = "at least 1 and finite"
        require(1 <= self.updates < math.inf, "updates", self.updates, accepted)

    @property
    def dimension(self) -> int:
        return self.prior.dimension

    @property
    def energy(self) -> float:
        """The expected squared length of a code.

        Signs of the projection are random, so that on average over seeds a mean that all numbers of
        a layer share keeps the share m/d of its squared length, as anything else does.
        """
        pairs = zip(self._projections, self.prior.energies, strict=True)
        return math.fsum(projection.size * energy for projection, energy in pairs)

    def encode(self, updates: np.ndarray) -> np.ndarray:
        return by_row(self._project, updates, self.dimension, self.size)

    def decode(self, code: np.ndarray, noise: float) -> np.ndarray:
        centred = checked_code(code, noise, self.size) - self._project(self.prior.mean)
        lifted = np.empty(self.dimension, dtype=np.float64)
        start = 0
        for layer, deviation, projection in zip(
            self.prior.slices, self.prior.deviations, self._projections, strict=True
        ):
            ratio = float(noise) / deviation
            kept = 1.0 / (1.0 + self.updates * (ratio * ratio))
            lifted[layer] = kept * projection.lift(centred[start : start + projection.size])
            start += projection.size
        return self.prior.mean + lifted

    def _project(self, update: np.ndarray) -> np.ndarray:
        layers = zip(self.prior.slices, self._projections, strict=True)
        return np.concatenate([projection.project(update[layer]) for layer, projection in layers])

    @functools.cached_property
    def _projections(self) -> tuple[Projection, ...]:
        layers = zip(self.prior.layers, split(self.prior, self.size), strict=True)
        return tuple(Projection(self.seed, layer.name, layer.size, m) for layer, m in layers)
