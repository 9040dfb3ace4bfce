"""Objectives without a gradient: scores within a range, of one answer each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hushtune.config import ConfigError, TaskConfig
from hushtune.tasks.objectives import Objective, objective_of

LABELS = {"bad": "terrible", "good": "great", "so-so": "fine"}


def classification(objective: str, **more: object) -> TaskConfig:
    return TaskConfig(labels=LABELS, objective=objective, **more)  # type: ignore[arg-type]


def own(folder: Path, source: str) -> str:
    path = folder / "score.py"
    path.write_text(source, encoding="utf-8")
    return f"{path}:score"


def test_the_loss_has_no_objective_beside_it():
    assert objective_of(classification("loss")) is None


def test_accuracy_costs_nothing_where_the_best_score_is_the_right_label_and_one_elsewhere():
    objective = objective_of(classification("accuracy"))
    assert objective is not None
    scores = torch.tensor([[0.1, 0.2, 0.3], [3.0, 1.0, 2.0]])
    assert objective.losses(scores, torch.tensor([2, 1])).tolist() == [0.0, 1.0]
    # Several heads at once.
    both = objective.losses(torch.stack([scores, -scores]), torch.tensor([2, 1]))
    assert both.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert both.dtype == torch.float64
    assert not objective.writes


def test_options_are_known_by_their_number(tmp_path: Path):
    path = own(
        tmp_path, "def score(answer, accepted):\n    return (answer, *accepted) == ('2', '0')\n"
    )
    objective = objective_of(TaskConfig(kind="multiple-choice", options=3, objective=path))
    assert objective is not None
    assert objective.losses(torch.eye(3), torch.zeros(3, dtype=torch.long)).tolist() == [1, 1, 0]


def test_a_score_of_ones_own_sees_the_names_in_the_data(tmp_path: Path):
    path = own(
        tmp_path,
        "COST = {('good', 'bad'): 0.0, ('so-so', 'bad'): 0.5}\n"
        "def score(answer, accepted):\n"
        "    return 1.0 if answer in accepted else COST.get((answer, accepted[0]), 0.25)\n",
    )
    objective = objective_of(classification(path))
    assert objective is not None
    scores, right = torch.eye(3), torch.tensor([0, 0, 0])
    assert objective.losses(scores, right).tolist() == [0.0, 1.0, 0.5]


@given(st.floats(), st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_a_score_counts_within_its_range_only(score: float, low: float, width: float):
    objective = Objective(lambda answer, accepted: score, low, low + width, [])
    loss = objective.loss("", [""])
    assert math.isnan(score) == math.isnan(loss)
    if not math.isnan(score):
        assert 0 <= loss <= objective.spread
        if low <= score <= low + width:
            assert loss == low + width - score


@pytest.mark.parametrize("worth", ["[1.0, 2.0]", "'1.0'", "None", "1j"])
def test_a_score_that_is_not_one_number_is_refused(worth: str, tmp_path: Path):
    path = own(tmp_path, f"def score(answer, accepted):\n    return {worth}\n")
    for task in (classification(path), TaskConfig(kind="completion", objective=path)):
        with pytest.raises(ConfigError, match=r"task\.objective: .* Expected a number"):
            objective_of(task)


@pytest.mark.parametrize(
    "path", ["no_such_module:score", "no_such_file.py:score", "math:no_such_name", "math:pi"]
)
def test_what_cannot_be_called_is_refused(path: str):
    with pytest.raises(ConfigError, match=r"^task\.objective: "):
        objective_of(classification(path))


def test_a_file_runs_once_however_many_runs_a_search_makes(tmp_path: Path, capsys):
    path = own(tmp_path, "print('read')\ndef score(answer, accepted):\n    return 0.5\n")
    for _ in range(3):
        objective_of(classification(path))
    assert capsys.readouterr().out == "read\n"


def test_a_file_that_fails_is_refused_in_one_line(tmp_path: Path):
    path = own(tmp_path, "1 / 0\n")
    with pytest.raises(ConfigError, match=r"^task\.objective: .*ZeroDivisionError"):
        objective_of(classification(path))


def test_a_function_of_a_module_is_found():
    objective = objective_of(TaskConfig(kind="completion", objective="score_of_tests:longer"))
    assert objective is not None
    assert objective.writes
    assert objective.loss("abc", ["abcdef"]) == 0.5


@given(st.lists(st.text(max_size=5), min_size=2, max_size=2))
def test_answers_are_told_apart(answers: Sequence[str]):
    objective = Objective(lambda answer, accepted: 0.0, 0.0, 1.0, []).telling_apart()
    one, other = (objective.loss(answer, [""]) for answer in answers)
    assert (one == other) == (answers[0] == answers[1])
