"""Where an update holds each moving tensor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from hushtune.privacy.plan import require


class Layer(NamedTuple):
    """One moving tensor, flattened: its name, and how many numbers it has."""

    name: str
    size: int


def require_layers(layers: Sequence[Layer]) -> None:
    """Refuse layers that cannot be told apart or hold nothing.

    Raises:
        ValueError: if there is none, names repeat or a size is not positive.
    """
    require(len(layers) >= 1, "layers", layers, "at least one")
    names = [layer.name for layer in layers]
    require(len(set(names)) == len(names), "layers", names, "of different names")
    for layer in layers:
        require(layer.size >= 1, f"size of {layer.name!r}", layer.size, "at least 1")


def slices_of(layers: Sequence[Layer]) -> tuple[slice, ...]:
    """(L,) the place of each layer in an update, one after the other."""
    ends = list(itertools.accumulate(layer.size for layer in layers))
    return tuple(itertools.starmap(slice, zip([0, *ends[:-1]], ends, strict=True)))
