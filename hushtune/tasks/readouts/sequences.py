"""What read-outs share that score text token by token, and the one of options to choose from.

A score is the mean log-likelihood of the tokens that are learned, so that long texts count as much
as short ones.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hushtune.tasks.readouts.base import Example, ReadOut, TokenSequence
from hushtune.tasks.readouts.classifying import cross_entropy
from hushtune.tasks.readouts.joining import Joining
from hushtune.tasks.readouts.likelihood import NO_TARGET
from hushtune.tasks.texts import Choices
from hushtune.zo.losses import Inputs

#: Public options to choose from, of different lengths.
_OPTIONS = ("yes", "no", "it was not", "a very good one", "never", "the other", "so it is", "bad")


class SequenceReadOut(ReadOut):
    """What these read-outs share.

    Args:
        joining: how the model is given a prompt and scored on what follows it.
        options: scores per example.
    """

    def __init__(self, model: nn.Module, joining: Joining, *, options: int = 1) -> None:
        super().__init__(model, joining.tokenizer, options, joining.max_tokens + 1)
        self.sequences = options
        self._joining = joining

    def in_one_pass(self) -> SequenceReadOut:
        twin = copy.copy(self)
        twin._joining = self._joining.in_one_pass()
        return twin

    def scores(self, inputs: Inputs) -> Tensor:
        each, targets = self._joining.scored(self.model, inputs)
        counts = (targets != NO_TARGET).sum(dim=1).clamp(min=1)
        return (each.double().sum(dim=1) / counts).view(-1, self.labels)

    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        del labels
        return -scores[..., 0].double()

    def tokens_learned(self, example: Example) -> int:
        """Number of tokens whose likelihood a score is the mean of."""
        return sum(target != NO_TARGET for each in example for target in each.targets)

    def _extra_inputs(self, sequences: Sequence[TokenSequence], length: int) -> Inputs:
        return self._joining.extra_inputs(sequences, length)

    @abstractmethod
    def encode(self, text: Any) -> Example: ...


class ChoicesReadOut(SequenceReadOut):
    """Options that may follow a text; the loss is the cross-entropy of the right one."""

    def encode(self, text: Choices) -> Example:
        prompt = self._plain(text.text)
        joined = [
            self._joining.join(prompt, self._plain(option), end=False) for option in text.options
        ]
        # Room for the longest, so that all options see the same part of the text.
        room = min(max(len(following) for _, following in joined), self._joining.max_targets)
        return tuple(self._joining.sequence(*each, room=room) for each in joined)

    def text_of(self, words: str) -> Choices:
        count = len(_OPTIONS)
        options = [_OPTIONS[k % count] + " again" * (k // count) for k in range(self.labels)]
        return Choices(words, tuple(options))

    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(scores, labels)
