"""Objectives without a gradient: a score of each answer, within a range that is known before.

The score of an example is a function of its own answer alone, so that what it contributes is
bounded whatever the model does: along K directions by (high − low)·√K / 2λ for two-sided
differences.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hushtune.config import ConfigError, TaskConfig
from hushtune.tasks.scores import exact_match, token_f1

#: From an answer, and those that are right, to what it is worth.
Score = Callable[[str, Sequence[str]], float]

_SCORES: dict[str, Score] = {
    "accuracy": lambda answer, accepted: float(answer in accepted),
    "exact-match": exact_match,
    "f1": token_f1,
}


class Objective:
    """What is minimised in place of the likelihood: the best score less that of the answer.

    Args:
        score: of an answer; more is better.
        low: least score; less than that counts as this.
        high: best score; more than that counts as this.
        names: of the labels or options to answer with, in their order; empty where the model
            writes its answer.
    """

    def __init__(self, score: Score, low: float, high: float, names: Sequence[str]) -> None:
        self._score = score
        self._low = low
        self._high = high
        self._names = names
        self._losses_of_labels = torch.tensor(
            [[self.loss(given, [right]) for right in names] for given in names],
            dtype=torch.float64,
        )

    @property
    def writes(self) -> bool:
        """Whether answers are written, by `generate`, and not chosen."""
        return not self._names

    @property
    def spread(self) -> float:
        """What two losses differ by at most."""
        return self._high - self._low

    def loss(self, answer: str, accepted: Sequence[str]) -> float:
        """From 0, the best, to `spread`; not a number where the score is none.

        Raises:
            TypeError: the score is no number.
        """
        score: Any = self._score(answer, accepted)
        if not isinstance(score, Real):
            raise TypeError(f"Expected a number for an answer, got {type(score).__name__}.")
        score = float(score)
        if math.isnan(score):
            return math.nan
        return self._high - min(max(score, self._low), self._high)

    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        """(…, rows) float64 losses of answering with the highest of (…, rows, labels) scores."""
        table = self._losses_of_labels.to(scores.device)
        answers = scores.argmax(dim=-1)
        return table[answers, labels.expand_as(answers)]

    def telling_apart(self) -> Objective:
        """An objective whose losses differ where answers do, and nowhere else."""
        return Objective(_number_of, 0.0, 2.0**48, self._names)


def objective_of(task: TaskConfig) -> Objective | None:
    """The objective that was asked for; None: the likelihood itself.

    Raises:
        ConfigError: a function that cannot be found, or that does not return a number.
    """
    if task.objective == "loss":
        return None
    names: Sequence[str] = ()
    if task.kind == "classification":
        names = list(task.labels)
    elif task.kind == "multiple-choice":
        names = [str(option) for option in range(task.options)]
    if task.objective in _SCORES:
        return Objective(_SCORES[task.objective], 0.0, 1.0, names)
    score = _imported(task.objective)
    try:
        objective = Objective(score, *task.objective_range, names)
        # What is public, so that a function of the wrong kind is found before training.
        objective.loss("an answer", ["an answer", "another one"])
    except Exception as error:
        raise ConfigError(
            f"task.objective: {task.objective} failed on made-up answers "
            f"({type(error).__name__}: {error}); it must take an answer and a list of right ones, "
            "and return a number."
        ) from None
    return objective


def _number_of(answer: str, accepted: Sequence[str]) -> float:
    del accepted
    return float(int.from_bytes(hashlib.sha256(answer.encode()).digest()[:6]))


@cache
def _imported(path: str) -> Score:
    """The function that `module:name`, or `file.py:name`, stands for; a file runs once a process.

    A search makes many runs, of which nobody is to know how many there were.
    """
    source, _, name = path.rpartition(":")
    try:
        if source.endswith(".py"):
            found = getattr(_module_of_file(Path(source)), name)
        else:
            found = getattr(importlib.import_module(source), name)
    except Exception as error:  # the file is the user's, and may do anything
        raise ConfigError(
            f"task.objective: {path} cannot be imported ({type(error).__name__}: {error}); it must "
            "be module:function or file.py:function."
        ) from None
    if not callable(found):
        raise ConfigError(f"task.objective: {path} is not a function.")
    return found  # type: ignore[return-value]


def _module_of_file(path: Path) -> Any:
    name = f"_hushtune_objective_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
