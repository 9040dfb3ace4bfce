"""A classification head: any model that transformers loads for sequence classification."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hushtune.tasks.readouts.base import Example, ReadOut, TokenSequence
from hushtune.tasks.readouts.template import Template
from hushtune.zo.losses import Inputs


class HeadReadOut(ReadOut):
    """Scores are the head's logits, in the order of the labels in the configuration."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, labels: int, template: str, max_length: int
    ) -> None:
        super().__init__(model, tokenizer, labels, max_length)
        self._template = Template(template, "{text}", label="optional")

    def _encode(self, text: str) -> Example:
        ids = self._fill_to_length(self._template.fill, text, self.max_tokens)
        return (TokenSequence(ids),)

    def scores(self, inputs: Inputs) -> Tensor:
        return self.model(**inputs).logits
