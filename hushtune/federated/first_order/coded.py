"""From an update to the numbers that the boundary gets, and from a release to a move.

Every release is a mean of vectors of K numbers and length C. In the first rounds they hold moments
of updates, then codes; what is not used of K is zero.

    moments   (m/C, q/C²)·C/√2, whose length is at most C (`hushtune.federated.codecs.moments`)
    codes     gain·encode(g), with the gain that makes a code as long as its update is expected
              to be; the boundary clips it to C, so that the clip means the same for every codec

A linear codec draws its projection anew in every round, from the public seed and the round's
number: what one round leaves out, another one sees.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hushtune.federated.codecs import Codec, Prior, moments
from hushtune.federated.first_order.flat import Flat
from hushtune.federated.first_order.optimizers import optimizer_of
from hushtune.federated.first_order.settings import CodedSettings
from hushtune.privacy import PrivacyPlan

#: From a prior and the number of a round to the codec and the gain of that round.
CodecOf = Callable[[Prior, int], tuple[Codec, float]]


class CodedUpdate:
    """The public state of a run: parameters, what is known of updates, and the optimiser's.

    Args:
        flat: the moving parameters.
        plan: of the run; K = plan.directions.
        settings: of the run.
        prior: of updates on public text.
        codec_of: makes a round's codec.
        noise: standard deviation of the noise on each number of a released mean.
    """

    def __init__(
        self,
        flat: Flat,
        plan: PrivacyPlan,
        settings: CodedSettings,
        prior: Prior,
        codec_of: CodecOf,
        *,
        noise: float,
    ) -> None:
        self._flat = flat
        self._plan = plan
        self._settings = settings
        self._public = prior
        self._codec_of = functools.lru_cache(maxsize=1)(codec_of)
        self._noise = noise
        self._unit = plan.grid / plan.expected_units
        self._moments: list[np.ndarray] = []
        self._optimizer = optimizer_of(
            settings.update, dimension=flat.dimension, scale=plan.clip_norm
        )

    @functools.cached_property
    def prior(self) -> Prior:
        """What codecs know of updates, once the rounds of moments are over."""
        if not self._moments:
            return self._public
        rounds = len(self._moments)
        mean = sum(self._moments[1:], self._moments[0]) / rounds
        in_moments = math.sqrt(2) / self._plan.clip_norm
        return Prior.from_moments(
            mean * in_moments,
            self._plan.clip_norm,
            self._flat.layers,
            self._noise * in_moments / math.sqrt(rounds),
        )

    def encode(self, update: np.ndarray, charge: int) -> np.ndarray:
        """(K,) float64 for the boundary, of an update of (d,) float64."""
        vector = np.zeros(self._plan.directions)
        if charge < self._settings.moment_rounds:
            clip = self._plan.clip_norm
            found = moments(update, clip, self._flat.layers) * (clip / math.sqrt(2))
        else:
            codec, gain = self._codec_of(self.prior, charge)
            found = gain * codec.encode(update)
        vector[: len(found)] = found
        return vector

    def replay(self, releases: Mapping[int, Sequence[int]]) -> None:
        """`apply` what charges released, in the order that they have there."""
        for charge, released in releases.items():
            self.apply(charge, released)

    def apply(self, charge: int, released: Sequence[int]) -> None:
        """Take in what charge `charge` released."""
        mean = self._unit * np.array(released, dtype=np.float64)
        if charge < self._settings.moment_rounds:
            self._moments.append(mean[: 2 * len(self._flat.layers)])
            return
        codec, gain = self._codec_of(self.prior, charge)
        decoded = codec.decode(mean[: codec.size] / gain, self._noise / gain)
        step = self._optimizer.step(decoded, self._rate(charge))
        self._flat.put(self._flat.values() - step)

    def _rate(self, charge: int) -> float:
        settings, first = self._settings, self._settings.moment_rounds
        if settings.schedule == "constant":
            return settings.learning_rate
        return settings.learning_rate * (1.0 - (charge - first) / (self._plan.steps - first))
