"""Public randomness of codecs: signs, permutations and draws, each from a seed and a name.

All of it comes from the definition in `hushtune.zo.directions`, under names that no parameter has,
so that nothing is shared with the directions of a run of the same seed.

Signs
    The Rademacher direction of charge 0 and direction 0 of the parameter ``codec signs: NAME``.
Permutation
    Philox words under the key of purpose ``initialise`` and parameter ``codec order: NAME``, charge
    0 and direction 0. Entry o has the 64-bit number whose low and high halves are words 2(o % 2)
    and 2(o % 2) + 1 of block o // 2. Entries are taken in ascending order of their numbers; equal
    ones keep their order.
"""

from __future__ import annotations

import numpy as np

from hushtune.zo.directions import Directions
from hushtune.zo.kernels import parameter_key
from hushtune.zo.kernels.reference import philox

Seed = int | str


def signs(seed: Seed, name: str, count: int) -> np.ndarray:
    """(count,) float64 of +1 and −1, the same on every machine."""
    named = f"codec signs: {name}"
    directions = Directions(seed, {named: (count,)})
    drawn = directions.slice(named, 0, count, charge=0, direction=0)
    return drawn.numpy().astype(np.float64)


def permutation(seed: Seed, name: str, count: int) -> np.ndarray:
    """(count,) int64: 0 to count − 1 in a random order, the same on every machine."""
    blocks = -(-count // 2)
    counter = np.zeros((blocks, 4), dtype=np.uint64)
    counter[:, 0] = np.arange(blocks)
    words = philox(counter, parameter_key(seed, "initialise", f"codec order: {name}"))
    halves = words.astype(np.uint64)
    numbers = halves[:, 0::2] | (halves[:, 1::2] << np.uint64(32))
    return np.argsort(numbers.reshape(-1)[:count], kind="stable")


def generator(seed: Seed, name: str) -> np.random.Generator:
    """NumPy's generator for synthetic draws; each name has its own, and their draws differ."""
    key = parameter_key(seed, "initialise", f"codec draws: {name}")
    return np.random.Generator(np.random.Philox(key=key))
