"""Micro-batches of fixed shapes, so that no example's numbers depend on another's presence.

A text goes to the bucket of its own length. Every micro-batch of a bucket has the same number of
rows and columns in every step of a run; rows that are left over are dummies. Shapes follow from
the configuration alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

Encoded = TypeVar("Encoded")

#: Rows of micro-batches of a few public examples, at most; and tokens, unless a run's have more.
_ROWS_OF_FEW = 8
_TOKENS_OF_FEW = 256


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
    *,
    max_length: int,
    tokens: int,
    sequences: int,
    expected_rows: float,
    overhead: int = 30,
    added: int = 0,
) -> list[Shape]:
    """The shapes of a run, by ascending length.

    Lengths stand close together, since what a text is shorter than its shape is computed for
    nothing; where many rows are expected they stand twice as close. If n rows of a length are
    expected, R in each micro-batch, about n / R + 1/2 micro-batches are computed, as the last one
    is half empty on average. The least of (n / R + 1/2) (R · length · sequences + overhead) is at
    R = √(2 n overhead / (length · sequences)). Texts are taken to be spread evenly over the
    logarithms of the lengths: which lengths the private texts have is not looked at.

    Leftover rows get no smaller shape of their own. Micro-batches with different numbers of rows
    give different bits, so which of them a row is in may not depend on the other rows.

    Args:
        max_length: longest sequence, in tokens.
        tokens: tokens that a micro-batch may have, if it is of more than one row.
        sequences: sequences per example (several labels may be scored one by one).
        expected_rows: expected number of examples a step.
        overhead: what a micro-batch costs beside its tokens, in tokens; see `hushtune.sizing`.
        added: virtual tokens that the model puts in front of each sequence.
    """
    lengths = _lengths(max_length, 4 if expected_rows >= 64 else 2)
    shortest = lengths[0] / 2
    shapes = []
    for shorter, length in zip([shortest, *lengths], lengths, strict=False):
        share = math.log(length / shorter) / math.log(max_length / shortest)
        computed = (length + added) * sequences
        best = math.sqrt(2 * share * expected_rows * overhead / computed)
        # A power of two: kernels treat the rest of an odd number of rows differently.
        rows = 1 << max(0, round(math.log2(best)))
        while rows > 1 and rows * computed > tokens:
            rows //= 2
        shapes.append(Shape(rows, length))
    return shapes


def one_row_each(shapes: Sequence[Shape], coupled: Sequence[Shape]) -> list[Shape]:
    """The shapes, those of them that are coupled with a single row."""
    return [dataclasses.replace(shape, rows=1) if shape in coupled else shape for shape in shapes]


def shapes_of_few(shapes: Sequence[Shape], sequences: int = 1) -> list[Shape]:
    """The shapes with rows that suit a few public examples, whatever a step of the run expects.

    Rows of large micro-batches would be left empty, and many small ones would be many passes.
    """
    largest = max(shape.rows * shape.length * sequences for shape in shapes)
    tokens = max(_TOKENS_OF_FEW, largest)

    def rows(shape: Shape) -> int:
        return min(_ROWS_OF_FEW, max(1, tokens // (shape.length * sequences)))

    return [dataclasses.replace(shape, rows=rows(shape)) for shape in shapes]


def _lengths(max_length: int, parts: int) -> list[int]:
    """Multiples of 8 from 16 on, so many to a doubling or fewer; the last is the longest text."""
    doublings = range(4, max_length.bit_length())
    lengths = {(1 << k) * (parts + part) // parts for k in doublings for part in range(parts)}
    return [*sorted(n for n in lengths if n < max_length and n % 8 == 0), max_length]


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
