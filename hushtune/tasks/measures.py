"""What a task's metrics are; public, and told without a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """Metrics that are weighted means over rows, or exp of one.

    Attributes:
        names: of the metrics, the one that counts first.
        counted: what a row's weight is the number of.
        largest: what a row's value is cut off at where it has to be bounded: 1 for a share; for the
            loss of a token that of a model that has learned nothing, ln(vocabulary).
    """

    names: tuple[str, ...]
    counted: Literal["rows", "tokens"]
    largest: float


def as_metric(name: str, mean: float) -> float:
    """The metric that a mean over rows stands for: itself, or exp of a mean loss."""
    if name != "perplexity":
        return mean
    return math.exp(mean) if mean < 700 else math.inf
