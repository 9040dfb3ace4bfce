"""How well a model does on public data: accuracy, exact match, F1 and perplexity."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from hushtune.tasks.readouts import ChoicesReadOut, CompletionReadOut, SequenceReadOut
from hushtune.tasks.task import TextTask
from hushtune.tasks.texts import Completion

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def evaluate(task: TextTask) -> dict[str, float]:
    """The metrics of a task on its rows, the one that counts first."""
    readout = task.readout
    if isinstance(readout, CompletionReadOut):
        return _of_answers(readout, task.texts)  # type: ignore[arg-type]
    if isinstance(readout, SequenceReadOut) and not isinstance(readout, ChoicesReadOut):
        return {"perplexity": _perplexity(readout, task)}
    return {"accuracy": float(np.mean(task.predictions() == task.labels))}


def score(metrics: Mapping[str, float]) -> float:
    """A number that is the larger the better the metrics are, by the one that counts."""
    name, value = next(iter(metrics.items()))
    if math.isnan(value):
        return -math.inf
    return -value if name == "perplexity" else value


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """1 where an answer is one of those accepted, but for case, articles and punctuation; else 0.

    As SQuAD compares answers (Rajpurkar et al., 2016).
    """
    return float(any(_words(answer) == _words(each) for each in accepted))


def token_f1(answer: str, accepted: Sequence[str]) -> float:
    """The best F1 of an answer's words against those of an accepted one, from 0 to 1.

    As in SQuAD, words are compared but for case, articles and punctuation. Two answers without any
    words agree.
    """
    return max(_f1(_words(answer), _words(each)) for each in accepted)


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


def _words(text: str) -> list[str]:
    plain = text.lower().translate(_PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split()


def _f1(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))
