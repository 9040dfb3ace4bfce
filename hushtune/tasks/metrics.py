"""How well a model does on public data: accuracy, exact match, F1 and perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from hushtune.tasks.readouts import ChoicesReadOut, CompletionReadOut, SequenceReadOut
from hushtune.tasks.scores import exact_match, token_f1
from hushtune.tasks.task import TextTask
from hushtune.tasks.texts import Completion


def evaluate(task: TextTask) -> dict[str, float]:
    """The metrics of a task on its rows, the one that counts first."""
    readout = task.readout
    if isinstance(readout, CompletionReadOut):
        return _of_answers(readout, task.texts)  # type: ignore[arg-type]
    if isinstance(readout, SequenceReadOut) and not isinstance(readout, ChoicesReadOut):
        return {"perplexity": _perplexity(readout, task)}
    return {"accuracy": float(np.mean(task.predictions() == task.labels))}


def _of_answers(readout: CompletionReadOut, texts: Sequence[Completion]) -> dict[str, float]:
    answers = readout.complete([text.prompt for text in texts])
    pairs = [(answer, text.accepted) for answer, text in zip(answers, texts, strict=True)]
    return {
        "f1": float(np.mean([token_f1(*pair) for pair in pairs])),
        "exact_match": float(np.mean([exact_match(*pair) for pair in pairs])),
    }


def _perplexity(readout: SequenceReadOut, task: TextTask) -> float:
    """exp of the mean loss of a token that is learned, over all rows."""
    learned = np.array([readout.tokens_learned(example) for example in task.examples])
    losses = np.zeros(task.rows)
    with torch.inference_mode():
        for places, inputs in task.micro_batches(np.arange(task.rows)):
            losses[places] = task.losses(inputs).cpu().numpy()[: len(places)]
    if not learned.sum():
        return math.nan
    mean = float((losses * learned).sum() / learned.sum())
    return math.exp(mean) if mean < 700 else math.inf
