"""Who takes part in a step: secret Poisson sampling of units.

Every unit takes part in every step independently with the same probability q. The randomness
comes from the operating system's cryptographic source; it has no seed, is never stored, and
shares no state with anything else in the process. Which units took part is a private value:
it goes to the computation of the losses and nowhere else.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np

#: A unit draws one 32-bit integer a step, so probabilities are multiples of 2^-32.
RESOLUTION = 2**32

RandomBytes = Callable[[int], bytes]


def representable_probability(probability: float) -> float:
    """The smallest multiple of 2^-32 that is at least `probability`.

    Accounting uses this value, so that the sampler never takes a unit more often than accounted.

    Raises:
        ValueError: if `probability` is not in (0, 1].
    """
    if not 0 < probability <= 1:
        raise ValueError(
            f"Expected sampling_probability={probability!r} to be above 0 and at most 1."
        )
    return math.ceil(probability * RESOLUTION) / RESOLUTION


class PoissonSampler:
    """Draws the units of one step, each with probability q, independently.

    Formal guarantee: the indicator of every unit is a Bernoulli(q) variable, independent of all
    other units, steps and releases, where q is a multiple of 2^-32 (`representable_probability`).

    Args:
        units: number of units in the data set.
        probability: q, a multiple of 2^-32.
        random_bytes: a source of random bytes, for tests only. Nothing that reads a
            configuration or a command line can reach this argument.
    """

    def __init__(
        self, *, units: int, probability: float, random_bytes: RandomBytes | None = None
    ) -> None:
        if representable_probability(probability) != probability:
            raise ValueError(
                f"Expected sampling_probability={probability!r} to be a multiple of 2^-32; "
                "see representable_probability."
            )
        self._units = units
        self.probability = probability
        self._threshold = np.uint64(round(probability * RESOLUTION))
        self._random_bytes = random_bytes or os.urandom

    def sample(self) -> np.ndarray:
        """Indices of the units that take part in this step: int64, ascending, possibly none."""
        draws = np.frombuffer(self._random_bytes(4 * self._units), dtype=np.uint32)
        return np.flatnonzero(draws < self._threshold)
