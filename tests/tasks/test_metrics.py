"""Exact match and F1 of answers, against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushtune.tasks.scores import exact_match, token_f1


@pytest.mark.parametrize(
    ("answer", "accepted", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["Eiffel tower"], 1.0, 1.0),
        ("in Paris", ["Paris"], 0.0, 2 / 3),
        ("Paris, France", ["London", "Paris"], 0.0, 2 / 3),
        ("a a b", ["a b b"], 0.0, 2 / 3),  # articles do not count: one b of one and of two
        ("", ["Paris"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
        ("1,000", ["1000"], 1.0, 1.0),
    ],
)
def test_answers(answer, accepted, exact, f1):
    assert exact_match(answer, accepted) == exact
    assert token_f1(answer, accepted) == pytest.approx(f1)


@given(st.text(max_size=30), st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_f1_is_a_share_and_an_exact_answer_has_all_of_it(answer, accepted):
    assert 0 <= token_f1(answer, accepted) <= 1
    assert token_f1(answer, accepted) >= exact_match(answer, accepted)
    assert exact_match(answer, [*accepted, answer]) == 1
