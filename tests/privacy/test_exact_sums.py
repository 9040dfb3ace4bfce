"""Sums in limbs are those of Python's integers, out to the ends of int64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hushtune.privacy import exact_sums
from hushtune.privacy.exact_sums import column_sums, sums_of_magnitudes, sums_of_squares

ENDS = st.sampled_from([-(2**63), 2**63 - 1, 2**53, -(2**53), 2**18, -(2**18) + 1, 0, 1])
MATRICES = arrays(
    np.int64,
    array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=ENDS | st.integers(-(2**63), 2**63 - 1),
)


@given(MATRICES)
def test_sums_are_exact(rows):
    of_python = rows.tolist()
    assert sums_of_squares(rows) == [sum(v * v for v in row) for row in of_python]
    assert sums_of_magnitudes(rows) == [sum(abs(v) for v in row) for row in of_python]
    assert column_sums(rows) == [sum(column) for column in zip(*of_python, strict=True)]


def test_long_rows_add_up_in_blocks(monkeypatch):
    monkeypatch.setattr(exact_sums, "_BLOCK", 3)
    rows = np.arange(-40, 40, dtype=np.int64).reshape(2, 40) * 2**40
    assert sums_of_squares(rows) == [sum(v * v for v in row) for row in rows.tolist()]
    assert sums_of_magnitudes(rows) == [sum(map(abs, row)) for row in rows.tolist()]


def test_limbs_of_a_block_cannot_overflow():
    largest = (2**exact_sums._BITS - 1) ** 2
    assert largest * exact_sums._BLOCK < 2**63
    assert exact_sums._BITS * exact_sums._LIMBS >= 64


@pytest.mark.parametrize("count", [0, 1])
def test_no_rows_add_up_to_nothing(count):
    assert column_sums(np.zeros((count, 3), dtype=np.int64)) == [0, 0, 0]
    assert sums_of_squares(np.zeros((count, 3), dtype=np.int64)) == [0] * count
