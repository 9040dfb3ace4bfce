"""A classification head: any model that transformers loads for sequence classification."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hushtune.tasks.readouts.base import Example
from hushtune.tasks.readouts.classifying import ClassifyingReadOut, Filled
from hushtune.tasks.readouts.template import Template
from hushtune.zo.losses import Inputs


class HeadReadOut(ClassifyingReadOut):
    """Scores are the head's logits, in the order of the labels in the configuration.

    Without a template, two texts are put together as the tokenizer does it.
    """

    def _prepare(self, words: Sequence[str], template: str) -> None:
        self._together = self.pairs and not template
        default = "{text} {second}" if self.pairs else "{text}"
        self._template = Template(template, default, label="optional", pairs=self.pairs)

    def _encode(self, text: str, second: str) -> Example:
        return (self._fill_to_length(self._filled, text, second, self.max_tokens),)

    def _filled(self, text: str, second: str) -> Filled:
        return (text, second) if self._together else self._template.fill(text, second)

    def scores(self, inputs: Inputs) -> Tensor:
        return self.model(**inputs).logits
