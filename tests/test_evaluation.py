"""When a run evaluates, and what it notes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hushtune import evaluation
from hushtune.evaluation import Evaluations, Metrics, named
from hushtune.tasks.data import LabelledText


class Told:
    """What a person would have seen."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.names: list[str] = []

    def stepped(self, steps: int, /) -> None:
        self.steps.append(steps)

    def evaluated(self, name: str, metrics: dict[str, float]) -> None:
        self.names.append(name)


#: Metrics that are known.
FOUND = {"f1": 0.5, "exact_match": 0.25}


@pytest.mark.parametrize(
    ("every", "between"), [(0, []), (2, ["after step 2"]), (3, ["after step 3"]), (4, [])]
)
def test_between_steps_and_once_at_the_end(
    every: int, between: list[str], tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(evaluation, "evaluate", lambda task: FOUND)
    told: Any = Told()
    task: Any = lambda _: SimpleNamespace(rows_cut=3)  # noqa: E731
    data = LabelledText(["text"], np.zeros(1, np.int64), np.zeros(1, np.int64))
    path = tmp_path / "metrics.jsonl"
    evaluations = Evaluations(task, data, Metrics(path), told, every=every, steps=4)
    assert evaluations.at(0, "zero-shot") == FOUND
    for step in range(1, 5):
        evaluations.after_step(step)
    assert evaluations.at(4, "trained") == FOUND
    assert evaluations.rows_cut == 3
    assert told.steps == [1, 2, 3, 4]
    assert told.names == ["zero-shot", *between, "trained"]
    noted = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(each == FOUND | {"step": each["step"]} for each in noted)
    assert [each["step"] for each in noted] == [0, *(int(name.split()[-1]) for name in between), 4]


def test_without_data_only_steps_are_told(tmp_path: Path):
    told: Any = Told()
    task: Any = None
    evaluations = Evaluations(task, None, Metrics(tmp_path / "m"), told, every=1, steps=2)
    assert evaluations.at(0, "zero-shot") == {}
    evaluations.after_step(1)
    assert (told.steps, told.names) == ([1], [])
    assert not (tmp_path / "m").exists()


def test_a_summary_names_what_was_measured_when():
    assert named("private", FOUND) == {"private_f1": 0.5, "private_exact_match": 0.25}
    assert named("zero_shot", {}) == {"zero_shot_accuracy": None}
