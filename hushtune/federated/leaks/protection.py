"""What is sent in place of an update: its code, clipped and noised by the boundary.

The rounds of a run do the same, for every unit that was sampled. Here the units are given, so that
the attacks see the worst round: the one whose only unit is the one that they are after.
"""

from __future__ import annotations

import math

import numpy as np

from hushtune.federated.codecs import Codec, Layer, Prior, moments
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.boundary import Boundary


class Sender:
    """Sends updates as noised codes.

    Args:
        codec: of the updates.
        boundary: whose plan has as many directions as codes have numbers.
    """

    def __init__(self, codec: Codec, boundary: Boundary) -> None:
        self.codec = codec
        self._plan = boundary.plan
        self._boundary = boundary
        # Codes of updates that the codec knows nothing of are as long as updates then.
        self._gain = math.sqrt(codec.dimension / codec.size)

    def send(self, updates: np.ndarray) -> np.ndarray:
        """(m,) float64: the noised mean code of (units, d) updates; by the expected units."""
        codes = self._gain * self.codec.encode(updates)
        released = self._boundary.release(codes, np.arange(len(codes)))
        unit = self._plan.grid / self._plan.expected_units
        return unit * np.array(released, dtype=np.float64) / self._gain

    def decode(self, code: np.ndarray) -> np.ndarray:
        """(d,) float64: the update that a sent code stands for."""
        return self.codec.decode(code, self._plan.noise_of_mean / self._gain)


def noised_moments(
    updates: np.ndarray, layers: tuple[Layer, ...], plan: PrivacyPlan, clip_norm: float
) -> np.ndarray:
    """(2L,) float64: the mean moments of (units, d) updates that a round releases.

    Args:
        updates: of one unit each.
        layers: of an update.
        plan: 2L directions and a clip of √2, the length of moments.
        clip_norm: C of the updates.
    """
    scalars = moments(updates, clip_norm, layers)
    released = Boundary(plan).release(scalars, np.arange(len(scalars)))
    return np.array(released, dtype=np.float64) * plan.grid / plan.expected_units


def noised_prior(
    updates: np.ndarray, layers: tuple[Layer, ...], plan: PrivacyPlan, clip_norm: float
) -> Prior:
    """The prior that is made of `noised_moments` of the same arguments."""
    mean = noised_moments(updates, layers, plan, clip_norm)
    return Prior.from_moments(mean, clip_norm, layers, plan.noise_of_mean)
