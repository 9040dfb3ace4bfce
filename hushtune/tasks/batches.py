"""Micro-batches of fixed shapes, so that no example's numbers depend on another's presence.

A text goes to the bucket of its own length. Every micro-batch of a bucket has the same number of
rows and columns in every step of a run; rows that are left over are dummies. Shapes follow from
the configuration alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

Encoded = TypeVar("Encoded")


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a micro-batch looks like, in every step of a run.

    Attributes:
        rows: examples, dummies included.
        length: tokens per sequence.
        directions: directions that one forward pass evaluates; see `hushtune.zo.slices`.
    """

    rows: int
    length: int
    directions: int = 1


def bucket_shapes(
    *, max_length: int, tokens: int, sequences: int, expected_rows: float
) -> list[Shape]:
    """The shapes of a run, by ascending length.

    Args:
        max_length: longest sequence, in tokens.
        tokens: tokens that a micro-batch should have.
        sequences: sequences per example (several labels may be scored one by one).
        expected_rows: expected number of examples a step; small batches get fewer, smaller
            shapes, since the rows of a micro-batch that are not needed are computed all the same.
    """
    fine = 8 if expected_rows >= 256 else 16
    lengths = [16, 24, *range(32, 64, fine), *range(64, 128, 2 * fine)]
    lengths += [128 * k for k in range(1, max_length // 128 + 1)]
    if expected_rows < 64:
        lengths = [length for length in lengths if length & (length - 1) == 0]
    lengths = [length for length in lengths if length < max_length] + [max_length]
    most = max(1, round(expected_rows))
    return [Shape(min(most, max(1, tokens // (length * sequences))), length) for length in lengths]


class Batcher(Generic[Encoded]):
    """Cuts a list of rows into micro-batches of the run's shapes.

    Args:
        examples: encoded examples, by row.
        length_of: an example's own length in tokens.
        shapes: see `bucket_shapes`.
        dummy: a public example that fills empty rows.
    """

    def __init__(
        self,
        examples: Sequence[Encoded],
        length_of: Callable[[Encoded], int],
        shapes: list[Shape],
        dummy: Encoded,
    ) -> None:
        self._examples = examples
        self._shapes = shapes
        self._dummy = dummy
        lengths = np.array([length_of(example) for example in examples], dtype=np.int64)
        self._bucket = np.searchsorted([shape.length for shape in shapes], lengths)
        if (self._bucket == len(shapes)).any():
            raise ValueError("Expected every example to fit into the longest shape.")

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, list[Encoded], Shape]]:
        """Pairs of places in `rows` and exactly `shape.rows` examples, dummies at the end."""
        buckets = self._bucket[rows]
        for bucket, shape in enumerate(self._shapes):
            places = np.flatnonzero(buckets == bucket)
            for start in range(0, len(places), shape.rows):
                taken = places[start : start + shape.rows]
                examples = [self._examples[row] for row in rows[taken]]
                examples += [self._dummy] * (shape.rows - len(taken))
                yield taken, examples, shape
