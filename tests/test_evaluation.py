"""When a run evaluates, and what it notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hushtune.evaluation import Evaluations, Metrics
from hushtune.tasks.data import LabelledText


class Told:
    """What a person would have seen."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.names: list[str] = []

    def stepped(self, steps: int, /) -> None:
        self.steps.append(steps)

    def evaluated(self, name: str, accuracy: float) -> None:
        self.names.append(name)


class Constant:
    """A task whose accuracy is known."""

    def accuracy(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("every", "between"), [(0, []), (2, ["after step 2"]), (3, ["after step 3"]), (4, [])]
)
def test_between_steps_and_once_at_the_end(every: int, between: list[str], tmp_path: Path):
    told: Any = Told()
    task: Any = lambda _: Constant()  # noqa: E731
    data = LabelledText(["text"], np.zeros(1, np.int64), np.zeros(1, np.int64))
    path = tmp_path / "metrics.jsonl"
    evaluations = Evaluations(task, data, Metrics(path), told, every=every, steps=4)
    assert evaluations.at(0, "zero-shot") == 0.5
    for step in range(1, 5):
        evaluations.after_step(step)
    assert evaluations.at(4, "trained") == 0.5
    assert told.steps == [1, 2, 3, 4]
    assert told.names == ["zero-shot", *between, "trained"]
    noted = [json.loads(line) for line in path.read_text().splitlines()]
    assert [each["step"] for each in noted] == [0, *(int(name.split()[-1]) for name in between), 4]


def test_without_data_only_steps_are_told(tmp_path: Path):
    told: Any = Told()
    task: Any = None
    evaluations = Evaluations(task, None, Metrics(tmp_path / "m"), told, every=1, steps=2)
    assert evaluations.at(0, "zero-shot") is None
    evaluations.after_step(1)
    assert (told.steps, told.names) == ([1], [])
    assert not (tmp_path / "m").exists()
