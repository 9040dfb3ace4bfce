"""What a run reads, and its accuracies on public evaluation data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hushtune.config import Config
from hushtune.files import write_whole
from hushtune.tasks.classification import ClassificationTask
from hushtune.tasks.data import LabelledText, read_labelled_text


def read_data(config: Config) -> tuple[LabelledText, LabelledText | None]:
    """The private training data, and the public evaluation data if there is any.

    Raises:
        DataError: naming the file and the row.
    """
    names = tuple(config.task.labels)
    data = read_labelled_text(config.data.train, config.data, names, with_units=True)
    if config.data.eval is None:
        return data, None
    return data, read_labelled_text(config.data.eval, config.data, names, with_units=False)


class Progress(Protocol):
    """What a person sees while a run goes on: public values only."""

    def stepped(self, steps: int, /) -> None:
        """So many steps have been taken, or charged."""
        ...

    def evaluated(self, name: str, accuracy: float) -> None:
        """An accuracy on public evaluation data."""
        ...


class Evaluations:
    """Evaluates a run before, between and after its steps, where there is data for it.

    Args:
        task: the model's task on some data.
        data: the public evaluation data.
        metrics: where accuracies are kept.
        progress: told of steps and of accuracies.
        every: steps between evaluations; 0: none between.
        steps: that the run has in all.
    """

    def __init__(
        self,
        task: Callable[[LabelledText], ClassificationTask],
        data: LabelledText | None,
        metrics: Metrics,
        progress: Progress,
        *,
        every: int,
        steps: int,
    ) -> None:
        self._task = task
        self._data = data
        self._metrics = metrics
        self._progress = progress
        self._every = every
        self._steps = steps

    def at(self, step: int, name: str) -> float | None:
        """The accuracy after so many steps, noted under its name; None without data."""
        if self._data is None:
            return None
        accuracy = self._task(self._data).accuracy()
        self._metrics.note(step, accuracy)
        self._progress.evaluated(name, accuracy)
        return accuracy

    def after_step(self, steps: int) -> None:
        """To be called after each step, with the number of steps so far."""
        self._progress.stepped(steps)
        if self._every and steps % self._every == 0 and steps < self._steps:
            self.at(steps, f"after step {steps}")


class Metrics:
    """Accuracies on public evaluation data by step; those of an interrupted run are kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._accuracy: dict[int, float] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._accuracy[entry["step"]] = entry["accuracy"]

    def note(self, step: int, accuracy: float) -> None:
        """Add one and write all."""
        self._accuracy[step] = accuracy
        self.write()

    def write(self) -> None:
        """Write all, by ascending step."""
        lines = [
            json.dumps({"step": step, "accuracy": self._accuracy[step]}) + "\n"
            for step in sorted(self._accuracy)
        ]
        write_whole(self._path, "".join(lines))
