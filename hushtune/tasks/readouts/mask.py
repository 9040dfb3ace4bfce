"""Label words at the mask of a masked language model (Schick & Schütze, 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hushtune.config import ConfigError
from hushtune.tasks.readouts.base import Example, ReadOut, TokenSequence, fill_to_length, logits_at
from hushtune.zo.losses import Inputs


class MaskReadOut(ReadOut):
    """Scores are the mask's logits at the label words, each of which is one token."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, words: Sequence[str], template: str, max_length: int
    ) -> None:
        super().__init__(model, tokenizer, len(words), max_length)
        if tokenizer.mask_token is None:
            raise ConfigError("task.readout: mask needs a tokenizer with a mask token.")
        self._template = template or "{text} It was {label}."
        self._word_ids = torch.tensor([self._single_token(word) for word in words])

    def _single_token(self, word: str) -> int:
        filled = self.tokenizer(self._template.format(text="a", label=word))["input_ids"]
        around = self.tokenizer(
            self._template.format(text="a", label=self.tokenizer.mask_token)
        )["input_ids"]
        place = around.index(self.tokenizer.mask_token_id)
        unknown = filled[place] == self.tokenizer.unk_token_id
        if len(filled) != len(around) or unknown:
            raise ConfigError(
                f"task.labels: {word!r} is not one token of this vocabulary; choose another word, "
                "or readout: head."
            )
        return filled[place]

    def encode(self, text: str) -> Example:
        mask = self.tokenizer.mask_token
        text = text.replace(mask, " ")
        ids = fill_to_length(
            self.tokenizer,
            lambda part: self._template.format(text=part, label=mask),
            text,
            self.max_length,
        )
        return (TokenSequence(ids, positions=(ids.index(self.tokenizer.mask_token_id),)),)

    def extra_inputs(self, sequences: Sequence[TokenSequence]) -> Inputs:
        return {"positions": torch.tensor([sequence.positions for sequence in sequences])}

    def scores(self, inputs: Inputs) -> Tensor:
        inputs = dict(inputs)
        positions = inputs.pop("positions")
        logits = logits_at(self.model, inputs, positions)
        return logits[:, 0].index_select(1, self._word_ids.to(logits.device))
