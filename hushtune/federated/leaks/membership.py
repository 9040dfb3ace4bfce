"""Leak 3: which examples a released model was trained on.

The game is that of `hushtune.audit`: each canary is put in or left out by its own fair coin, the
model is trained, and somebody who has the canaries, the model before and the model after guesses
the coins. A canary is a text with the wrong label: nothing but having been there lowers its loss,
and audits on average examples miss the ones that are given away (Aerni, Zhang and Tramèr 2024,
arXiv 2404.17399). From guesses to a lower bound on ε goes `hushtune.audit.guessing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from hushtune.audit.guessing import SHARES, Claim, judge
from hushtune.federated.leaks.protection import Sender
from hushtune.federated.leaks.scores import auc, true_positive_rate
from hushtune.federated.leaks.victim import Victim
from hushtune.privacy.sampling import PoissonSampler, representable_probability
from hushtune.tasks.data import LabelledText
from hushtune.tasks.readouts import ReadOut, example_length

#: From the rows that were sampled to the (d,) mean update that the server gets.
MeanUpdate = Callable[[np.ndarray], np.ndarray]

#: Rows whose losses are computed together.
_ROWS = 32


def with_canaries(
    data: LabelledText, canaries: np.ndarray, coins: np.ndarray, labels: int
) -> tuple[LabelledText, LabelledText]:
    """The data to train on, and all canaries.

    Args:
        data: text with its right labels.
        canaries: (m,) rows that become canaries: each with the next label in place of its own.
        coins: (m,) bool, which of them are put in.
        labels: how many labels there are.
    """
    wrong = data.labels.copy()
    wrong[canaries] = (wrong[canaries] + 1) % labels
    kept = np.delete(np.arange(len(data.texts)), canaries[~coins])
    return _rows_of(data, wrong, kept), _rows_of(data, wrong, canaries)


def plain_mean(victim: Victim, expected: float) -> MeanUpdate:
    """Without privacy: the sum of the rows' gradients, by the expected number of rows."""

    def of_rows(rows: np.ndarray) -> np.ndarray:
        total = np.zeros(victim.flat.dimension)
        for some in np.array_split(rows, -(-len(rows) // _ROWS)) if len(rows) else []:
            total += len(some) * victim.gradient(some)
        return total / expected

    return of_rows


def private_mean(victim: Victim, sender: Sender) -> MeanUpdate:
    """With privacy: each row's gradient is encoded and clipped, their sum noised and decoded."""

    def of_rows(rows: np.ndarray) -> np.ndarray:
        found = victim.updates(rows) if len(rows) else np.zeros((0, victim.flat.dimension))
        return sender.decode(sender.send(found))

    return of_rows


def train(
    victim: Victim, mean: MeanUpdate, *, probability: float, rounds: int, learning_rate: float
) -> None:
    """Rounds over Poisson samples of the rows; the server moves the parameters by Adam."""
    sampler = PoissonSampler(
        units=len(victim.data.texts), probability=representable_probability(probability)
    )
    optimizer = torch.optim.Adam(victim.parameters.values(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, rounds)
    for _ in range(rounds):
        update = victim.flat.tensors(mean(sampler.sample()))
        for name, parameter in victim.parameters.items():
            parameter.grad = update[name].to(parameter)
        optimizer.step()
        schedule.step()
    for parameter in victim.parameters.values():
        parameter.grad = None


def losses(readout: ReadOut, data: LabelledText) -> np.ndarray:
    """(rows,) float64 losses of the model as it is."""
    return np.concatenate([found for found, _ in _answers(readout, data)])


def accuracy(readout: ReadOut, data: LabelledText) -> float:
    """The share of rows whose label has the highest score."""
    return float(np.concatenate([right for _, right in _answers(readout, data)]).mean())


@dataclass(frozen=True)
class Guessed:
    """How well coins were guessed from how far losses fell.

    Attributes:
        auc: P[a canary that was in has a larger score than one that was out].
        true_positives: share of those in, found at a false positive rate of at most 1 %.
        epsilon_lower_bound: at δ, with the given confidence.
    """

    auc: float
    true_positives: float
    epsilon_lower_bound: float


def guess(scores: np.ndarray, coins: np.ndarray, *, delta: float, confidence: float) -> Guessed:
    """What scores, larger for canaries that seem to be in, say of the coins."""
    nothing_claimed = Claim(None, delta, None, gaussian=False)
    significance = (1 - confidence) / len(SHARES)
    guesses = [
        judge("model", scores, coins, share, nothing_claimed, significance) for share in SHARES
    ]
    return Guessed(
        auc(scores[coins], scores[~coins]),
        true_positive_rate(scores[coins], scores[~coins], at=0.01),
        max(each.epsilon_lower_bound for each in guesses),
    )


def _answers(readout: ReadOut, data: LabelledText) -> list[tuple[np.ndarray, np.ndarray]]:
    """Losses and whether the answer is right, a pair for some rows at a time."""
    found = []
    for start in range(0, len(data.texts), _ROWS):
        examples = [readout.encode(text) for text in data.texts[start : start + _ROWS]]
        labels = torch.from_numpy(data.labels[start : start + _ROWS])
        with torch.inference_mode():
            scores = readout.scores(
                readout.collate(examples, max(map(example_length, examples)))
            ).cpu()
            right = scores.argmax(dim=-1) == labels
            found.append((readout.losses(scores, labels).numpy(), right.numpy()))
    return found


def _rows_of(data: LabelledText, labels: np.ndarray, rows: np.ndarray) -> LabelledText:
    return LabelledText([data.texts[row] for row in rows], labels[rows], np.arange(len(rows)))
