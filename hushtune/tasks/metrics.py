"""How well a model does: accuracy, exact match, F1 and perplexity.

Each of them is a weighted mean over rows, or exp of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from hushtune.tasks.measures import Measure, as_metric
from hushtune.tasks.readouts import ChoicesReadOut, CompletionReadOut, ReadOut, SequenceReadOut
from hushtune.tasks.scores import exact_match, token_f1
from hushtune.tasks.task import TextTask
from hushtune.tasks.texts import Completion


def measure_of(readout: ReadOut) -> Measure:
    """What is measured of a task that is read out like this."""
    if isinstance(readout, CompletionReadOut):
        return Measure(("f1", "exact_match"), "rows", 1.0)
    if isinstance(readout, SequenceReadOut) and not isinstance(readout, ChoicesReadOut):
        return Measure(("perplexity",), "tokens", math.log(len(readout.tokenizer)))
    return Measure(("accuracy",), "rows", 1.0)


def score_rows(task: TextTask, *, alone: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Each row's weight, (rows,), and its values, (rows, metrics); both float64.

    Args:
        alone: whether prompts are completed one by one. Those that are completed together are
            padded to the longest of them, and round differently than on their own.
    """
    readout = task.readout
    match measure_of(readout).names:
        case ("perplexity",):
            return _token_losses(readout, task)  # type: ignore[arg-type]
        case ("f1", "exact_match"):
            values = _of_answers(readout, task.texts, alone=alone)  # type: ignore[arg-type]
        case _:
            values = (task.predictions() == task.labels)[:, None].astype(np.float64)
    return np.ones(task.rows), values


def evaluate(task: TextTask) -> dict[str, float]:
    """The metrics of a task on its rows, the one that counts first."""
    names = measure_of(task.readout).names
    weights, values = score_rows(task)
    if not weights.sum():
        return dict.fromkeys(names, math.nan)
    means = (weights[:, None] * values).sum(axis=0) / weights.sum()
    return {name: as_metric(name, float(mean)) for name, mean in zip(names, means, strict=True)}


def score(metrics: Mapping[str, float]) -> float:
    """A number that is the larger the better the metrics are, by the one that counts."""
    name, value = next(iter(metrics.items()))
    if math.isnan(value):
        return -math.inf
    return -value if name == "perplexity" else value


def _of_answers(
    readout: CompletionReadOut, texts: Sequence[Completion], *, alone: bool
) -> np.ndarray:
    """(rows, 2) F1 and exact match of what the model writes."""
    answers = readout.complete([text.prompt for text in texts], alone=alone)
    pairs = [(answer, text.accepted) for answer, text in zip(answers, texts, strict=True)]
    return np.array([(token_f1(*pair), exact_match(*pair)) for pair in pairs]).reshape(-1, 2)


def _token_losses(readout: SequenceReadOut, task: TextTask) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) how many tokens of a row are learned, and (rows, 1) the mean loss of one."""
    learned = np.array([readout.tokens_learned(example) for example in task.examples], np.float64)
    losses = np.zeros((task.rows, 1))
    with torch.inference_mode():
        for places, inputs in task.micro_batches(np.arange(task.rows)):
            losses[places, 0] = task.losses(inputs).cpu().numpy()[: len(places)]
    return learned, losses
