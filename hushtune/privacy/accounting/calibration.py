"""The least noise for an ε: a root search that ends on the private side."""

import math
from collections.abc import Callable

from hushtune.privacy.accounting.validation import expect

# Noise below a hundredth of the clipping norm hides nothing; a plan that would need less gets this.
SMALLEST_NOISE = 0.01
LARGEST_NOISE = 1e12
_LOWEST, _HIGHEST = math.log(SMALLEST_NOISE), math.log(LARGEST_NOISE)

# The search accepts an ε that falls short of the target by a fraction between these. The gap keeps
# a noise multiplier that is later rounded up a little from landing above the target: ε found on
# grids is not smooth to the last digit.
_LEAST_SHORTFALL = 5e-4
_MOST_SHORTFALL = 1.3e-3
_AIM = -math.log1p(-8e-4)
# Where noise is bracketed this closely, as a ratio, the upper end will do.
_CLOSE = 2e-4
# log ε falls about this fast with log noise, when nothing better is known.
_USUAL_SLOPE = -1.3


class Search:
    """Secant steps on log ε as a function of log noise, which is nearly straight.

    Args:
        target: the ε that may not be exceeded.
        guess: the noise multiplier to start from.
    """

    def __init__(self, target: float, guess: float) -> None:
        self._target = target
        self._position = _within_reach(math.log(guess))
        self._slope = _USUAL_SLOPE

    def run(self, epsilon_of: Callable[[float], float]) -> float:
        """A noise multiplier with ε just below the target, about 0.1 % above the smallest.

        A second run starts where the first ended, so that a rough ε can lead to an exact one.

        Args:
            epsilon_of: ε as a decreasing function of the noise multiplier; may be 0 or infinite.

        Raises:
            ValueError: if no noise multiplier up to 10^12 reaches the target.
        """
        too_little, enough = -math.inf, math.inf
        previous: tuple[float, float] | None = None
        while True:
            noise = math.exp(self._position)
            epsilon = epsilon_of(noise)
            if epsilon <= self._target * (1 - _LEAST_SHORTFALL):
                enough = self._position
                close = epsilon >= self._target * (1 - _MOST_SHORTFALL)
                if close or self._position <= _LOWEST:
                    return noise
                step = -0.7
            else:
                too_little = self._position
                reachable = self._position < _HIGHEST
                accepted = f"reachable with a noise multiplier of at most {LARGEST_NOISE:g}"
                expect(reachable, "epsilon", self._target, accepted)
                step = 0.7
            if enough - too_little <= _CLOSE:
                self._position = enough
                return math.exp(enough)
            if 0 < epsilon < math.inf:
                height = math.log(epsilon / self._target)
                if previous is not None:
                    measured = (height - previous[1]) / (self._position - previous[0])
                    self._slope = min(measured, -0.5) if measured < 0 else _USUAL_SLOPE
                previous = (self._position, height)
                step = min(max(-(height + _AIM) / self._slope, -1.5), 1.5)
            following = _within_reach(self._position + step)
            if not too_little < following < enough:
                following = (too_little + enough) / 2
            self._position = following


def _within_reach(position: float) -> float:
    return min(max(position, _LOWEST), _HIGHEST)
