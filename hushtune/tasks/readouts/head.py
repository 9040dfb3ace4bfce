"""A classification head: any model that transformers loads for sequence classification."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hushtune.tasks.readouts.base import Example, ReadOut, TokenSequence, fill_to_length
from hushtune.zo.losses import Inputs


class HeadReadOut(ReadOut):
    """Scores are the head's logits, in the order of the labels in the configuration."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, labels: int, template: str, max_length: int
    ) -> None:
        super().__init__(model, tokenizer, labels, max_length)
        self._template = template or "{text}"

    def encode(self, text: str) -> Example:
        ids = fill_to_length(
            self.tokenizer,
            lambda part: self._template.format(text=part, label=""),
            text,
            self.max_length,
        )
        return (TokenSequence(ids),)

    def scores(self, inputs: Inputs) -> Tensor:
        return self.model(**inputs).logits
