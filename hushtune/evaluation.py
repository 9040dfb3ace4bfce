"""What a run reads, and how well it does on public evaluation data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from hushtune.config import Config
from hushtune.files import write_whole
from hushtune.tasks.data import LabelledText, labelled_text, read_labelled_text
from hushtune.tasks.files import numbered
from hushtune.tasks.metrics import evaluate
from hushtune.tasks.task import TextTask

#: Rows that are in memory, by what the configuration calls them: `data.train` or `data.eval`.
GivenRows = Mapping[str, Iterable[Mapping[str, Any]]]


def read_data(
    config: Config, given: GivenRows | None = None
) -> tuple[LabelledText, LabelledText | None]:
    """The private training data, and the public evaluation data if there is any.

    Args:
        given: rows in memory, by the name that the configuration has in place of a file.

    Raises:
        DataError: naming the file and the row.
    """
    data = read_named(config.data.train, config, given or {}, with_units=True)
    return data, read_public(config, given)


def read_public(config: Config, given: GivenRows | None = None) -> LabelledText | None:
    """The public evaluation data, if there is any; arguments and errors as for `read_data`."""
    if config.data.eval is None:
        return None
    return read_named(config.data.eval, config, given or {}, with_units=False)


def read_named(name: str, config: Config, given: GivenRows, *, with_units: bool) -> LabelledText:
    """Rows of a file, or those in memory that have this name.

    Raises:
        DataError: naming the file and the row.
    """
    if name not in given:
        return read_labelled_text(name, config.data, config.task, with_units=with_units)
    rows = numbered(given[name], name)
    return labelled_text(rows, config.data, config.task, source=name, with_units=with_units)


class Progress(Protocol):
    """What a person sees while a run goes on: public values only."""

    def stepped(self, steps: int, /) -> None:
        """So many steps have been taken, or charged."""
        ...

    def evaluated(self, name: str, metrics: Mapping[str, float]) -> None:
        """Metrics on public evaluation data, the one that counts first."""
        ...


class Evaluations:
    """Evaluates a run before, between and after its steps, where there is data for it.

    Args:
        task: the model's task on some data.
        data: the public evaluation data.
        metrics: where they are kept.
        progress: told of steps and of metrics.
        every: steps between evaluations; 0: none between.
        steps: that the run has in all.

    Attributes:
        rows_cut: number of evaluation rows of which a part did not fit; None before the first
            evaluation.
    """

    def __init__(
        self,
        task: Callable[[LabelledText], TextTask],
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
        self.rows_cut: int | None = None

    def at(self, step: int, name: str) -> dict[str, float]:
        """Metrics after so many steps, noted under that name; none without data."""
        if self._data is None:
            return {}
        task = self._task(self._data)
        self.rows_cut = task.rows_cut
        found = evaluate(task)
        self._metrics.note(step, found)
        self._progress.evaluated(name, found)
        return found

    def after_step(self, steps: int) -> None:
        """To be called after each step, with the number of steps so far."""
        self._progress.stepped(steps)
        if self._every and steps % self._every == 0 and steps < self._steps:
            self.at(steps, f"after step {steps}")


class Metrics:
    """Metrics on public evaluation data by step; those of an interrupted run are kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._of_step: dict[int, dict[str, float]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._of_step[entry.pop("step")] = entry

    def note(self, step: int, metrics: dict[str, float]) -> None:
        """Add those of a step and write all."""
        self._of_step[step] = metrics
        self.write()

    def write(self) -> None:
        """Write all, by ascending step."""
        lines = [
            json.dumps({"step": step, **self._of_step[step]}) + "\n"
            for step in sorted(self._of_step)
        ]
        write_whole(self._path, "".join(lines))


def named(prefix: str, metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as a summary has them: `private_accuracy`; an unknown accuracy where there are none.

    Args:
        prefix: what the model had learned: "zero_shot", "private" or "non_private".
    """
    return {f"{prefix}_{name}": value for name, value in (metrics or {"accuracy": None}).items()}
