"""Secret draws of a search: how many runs it makes, and which configuration each of them has.

Formal guarantee: `number_of_runs` and `below` have exactly the distribution that they name, given
independent uniform bits. Those come from the operating system's cryptographic source; they have no
seed, are never stored, and share no state with anything else in the process. What is drawn here is
private for good: of a search nobody learns how many runs there were, nor when the best one ran.
"""

from __future__ import annotations

import math
import os

from hushtune.privacy.accounting.stopping import Stopping
from hushtune.privacy.sampling import RandomBytes

#: Bits that a draw begins with; more follow where these leave it open.
_BITS = 64


class SecretDraws:
    """Draws numbers that nobody may learn.

    Args:
        random_bytes: a source of random bytes, for tests only. Nothing that reads a configuration
            or a command line can reach this argument.
    """

    def __init__(self, *, random_bytes: RandomBytes | None = None) -> None:
        self._random_bytes = random_bytes or os.urandom

    def below(self, bound: int) -> int:
        """A uniform number from 0 to `bound` − 1: bits are drawn until they are one of them."""
        bits = max(1, (bound - 1).bit_length())
        while True:
            drawn = int.from_bytes(self._random_bytes((bits + 7) // 8), "big") % 2**bits
            if drawn < bound:
                return drawn

    def number_of_runs(self, stopping: Stopping) -> int:
        """K: where a uniform number, bit by bit, falls in the distribution function."""
        uniform, bits = 0, 0
        while True:
            more = max(bits, _BITS)
            uniform = uniform << more | int.from_bytes(self._random_bytes(more // 8), "big")
            bits += more
            runs = runs_at(stopping, uniform, bits)
            if runs is not None:
                return runs


def runs_at(stopping: Stopping, uniform: int, bits: int) -> int | None:
    """K for every number that begins with these bits; None where they do not settle it.

    Weights of the numbers of runs are bracketed by integers, rounded down and up, and what is left
    after the last one by a geometric series, so that what is returned is never off by a rounding.
    """
    scale = 2 ** (bits + 64)
    at_least = at_most = scale
    lows, highs = [0], [0]  # bounds on the sum of the weights of up to so many runs
    runs = 0
    while True:
        runs += 1
        lows.append(lows[-1] + at_least)
        highs.append(highs[-1] + at_most)
        falls = stopping.largest_ratio_from(runs)
        if falls < 1:
            left = math.ceil(at_most * falls / (1 - falls))
            if left << bits + 32 < highs[-1]:
                break
        ratio = stopping.ratio(runs)
        at_least = at_least * ratio.numerator // ratio.denominator
        at_most = -(-at_most * ratio.numerator // ratio.denominator)
    total_low, total_high = lows[-1], highs[-1] + left
    for count in range(1, runs + 1):
        surely_above = uniform * total_low >= highs[count - 1] << bits
        surely_within = (uniform + 1) * total_high <= lows[count] << bits
        if surely_above and surely_within:
            return count
    return None
