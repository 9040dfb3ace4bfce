"""Micro-batches: fixed shapes, each text in the bucket of its own length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushtune.tasks.batches import Batcher, Shape, bucket_shapes

SHAPES = [Shape(3, 4), Shape(2, 8)]
DUMMY = ""

texts = st.lists(st.text("ab", min_size=1, max_size=8), min_size=1, max_size=12)


def batcher(examples: list[str]) -> Batcher[str]:
    return Batcher(examples, len, SHAPES, DUMMY)


@given(
    max_length=st.integers(8, 2000),
    tokens=st.integers(8, 8192),
    sequences=st.integers(1, 8),
    expected_rows=st.floats(0.01, 10_000),
)
def test_shapes_end_with_the_longest_text_and_hold_at_least_a_row(
    max_length: int, tokens: int, sequences: int, expected_rows: float
):
    shapes = bucket_shapes(
        max_length=max_length, tokens=tokens, sequences=sequences, expected_rows=expected_rows
    )
    lengths = [shape.length for shape in shapes]
    assert lengths == sorted({*lengths})
    assert lengths[-1] == max_length
    for shape in shapes:
        assert shape.rows == 1 or shape.rows * shape.length * sequences <= tokens


def test_small_batches_get_fewer_and_smaller_shapes():
    wanted = {"max_length": 128, "tokens": 4096, "sequences": 1}
    small = bucket_shapes(**wanted, expected_rows=8)
    large = bucket_shapes(**wanted, expected_rows=256)
    assert len(small) < len(large)
    assert max(shape.rows for shape in small) < max(shape.rows for shape in large)


@pytest.mark.parametrize("expected_rows", [8, 64, 256, 1000])
@pytest.mark.parametrize("overhead", [30, 150])
def test_no_other_number_of_rows_would_cost_much_less(expected_rows: int, overhead: int):
    shapes = bucket_shapes(
        max_length=128, tokens=8192, sequences=1, expected_rows=expected_rows, overhead=overhead
    )
    lengths = np.array([8, *(shape.length for shape in shapes)])
    shares = np.diff(np.log(lengths)) / np.log(128 / 8)
    for shape, share in zip(shapes, shares, strict=True):
        rows = np.array([shape.rows, *(2**k for k in range(7))])
        micro_batches = share * expected_rows / rows + 0.5
        costs = micro_batches * (rows * shape.length + overhead)
        assert costs[0] <= 1.1 * costs.min(), shape


@given(examples=texts, data=st.data())
def test_every_chosen_row_is_in_exactly_one_batch_of_its_own_bucket(examples, data):
    chosen = data.draw(st.lists(st.integers(0, len(examples) - 1), unique=True))
    rows = np.array(chosen, dtype=np.int64)
    seen: list[int] = []
    for places, batch, shape in batcher(examples).batches(rows):
        assert shape in SHAPES
        assert len(batch) == shape.rows
        assert 1 <= len(places) <= shape.rows
        assert batch[: len(places)] == [examples[row] for row in rows[places]]
        assert batch[len(places) :] == [DUMMY] * (shape.rows - len(places))
        fitting = min(each.length for each in SHAPES if each.length >= len(batch[0]))
        assert shape.length == fitting
        seen.extend(places)
    assert sorted(seen) == list(range(len(rows)))


@given(examples=texts, other=st.text("ab", min_size=1, max_size=8))
def test_the_bucket_of_a_text_ignores_all_other_texts(examples: list[str], other: str):
    def shape_of_first(some: list[str]) -> Shape:
        for _, batch, shape in batcher(some).batches(np.arange(len(some))):
            if some[0] in batch:
                return shape
        raise AssertionError("the first text is in no batch")

    assert shape_of_first([examples[0]]) == shape_of_first([examples[0], other, *examples[1:]])


def test_no_rows_make_no_batches():
    assert list(batcher(["a"]).batches(np.empty(0, dtype=np.int64))) == []


@pytest.mark.parametrize(("length", "expected"), [(1, 4), (4, 4), (5, 8), (8, 8)])
def test_a_text_that_just_fits_stays_in_the_smaller_bucket(length: int, expected: int):
    ((_, _, shape),) = batcher(["a" * length]).batches(np.array([0]))
    assert shape.length == expected
