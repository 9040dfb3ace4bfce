"""Canaries: made-up texts with wrong labels, each put in or left out by a fair coin.

They are public. Nothing about them depends on the private data; only the coins are secret, from
whoever attacks, until the guesses are made.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hushtune.config import Config
from hushtune.session import Session
from hushtune.tasks.data import LabelledText

#: Words of a canary: few, so that texts differ in most of what a model reads.
_WORDS = 6

#: Fewer words than this in a vocabulary do not make enough different texts.
_FEWEST_WORDS = 8

ADD_OR_REMOVE = "add-or-remove-one"


@dataclass(frozen=True)
class Canaries:
    """Texts with two labels each, and what a coin decides.

    The coin of canary j decides what the adjacency of the guarantee is about: with
    add-or-remove-one whether the row (text, `wrong`) is there at all, with replace-one which of the
    rows (text, `wrong`) and (text, `right`) is.

    Attributes:
        texts: one per canary, all different.
        wrong: (canaries,) int64, the label that the base model finds least likely.
        right: (canaries,) int64, the label that it finds most likely.
        replaced: whether the other side of the coin is a row as well.
    """

    texts: list[str]
    wrong: np.ndarray
    right: np.ndarray
    replaced: bool

    def rows(self) -> LabelledText:
        """All rows that there might be: those of heads, then, with `replaced`, those of tails."""
        count = 2 if self.replaced else 1
        labels = np.concatenate([self.wrong, self.right][:count])
        return LabelledText(self.texts * count, labels, np.arange(len(labels)))

    def write(self, path: Path, coins: np.ndarray, config: Config) -> None:
        """The training file that these coins make, in the columns of the configuration."""
        names, data = list(config.task.labels), config.data
        with path.open("w", encoding="utf-8") as file:
            for index, coin in enumerate(coins):
                if not coin and not self.replaced:
                    continue
                label = names[(self.wrong if coin else self.right)[index]]
                row = {data.text: self.texts[index], data.label: label}
                if data.unit is not None:
                    row[data.unit] = f"canary {index}"
                file.write(json.dumps(row) + "\n")


def make_canaries(session: Session, count: int) -> Canaries:
    """`count` canaries for the session's base model.

    Texts are words of the tokenizer's vocabulary in an order that follows from the public seed.
    """
    words = _words(session.loaded.readout.tokenizer)
    draw = np.random.default_rng(session.config.seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(draw.choice(words, size=_WORDS))] = None
    scores = _scores(session, list(texts))
    return Canaries(
        list(texts),
        scores.argmin(axis=1),
        scores.argmax(axis=1),
        replaced=getattr(session.plan, "adjacency", ADD_OR_REMOVE) != ADD_OR_REMOVE,
    )


def toss(count: int) -> np.ndarray:
    """(count,) bool: fair coins from the operating system's cryptographic source."""
    return np.array([secrets.randbits(1) for _ in range(count)], dtype=bool)


def _words(tokenizer: Any) -> list[str]:
    """Plain words that are one token each."""
    words = {tokenizer.decode([token]).strip() for token in range(len(tokenizer))}
    plain = sorted(word for word in words if word.isascii() and word.isalpha() and len(word) > 2)
    if len(plain) < _FEWEST_WORDS:
        raise ValueError(
            f"model.name: its tokenizer has {len(plain)} plain words; canaries need at least "
            f"{_FEWEST_WORDS}."
        )
    return plain


def _scores(session: Session, texts: list[str]) -> np.ndarray:
    """(texts, labels) scores of the base model."""
    readout = session.loaded.readout
    nothing = np.zeros(len(texts), dtype=np.int64)
    task = session.task(LabelledText(texts, nothing, np.arange(len(texts))))
    scores = np.empty((len(texts), readout.labels))
    with torch.inference_mode():
        for places, inputs in task.micro_batches(np.arange(len(texts))):
            model_inputs = {name: value for name, value in inputs.items() if name != "labels"}
            values = readout.scores(model_inputs).double().cpu().numpy()
            scores[places] = values[: len(places)]
    return scores
