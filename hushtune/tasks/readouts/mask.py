"""Label words at the mask of a masked language model (Schick & Schütze, 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hushtune.config import ConfigError
from hushtune.tasks.readouts.base import Example, TokenSequence, logits_at
from hushtune.tasks.readouts.classifying import ClassifyingReadOut
from hushtune.tasks.readouts.template import Template
from hushtune.zo.losses import Inputs


class MaskReadOut(ClassifyingReadOut):
    """Scores are the mask's logits at the label words, each of which is one token.

    The mask stands exactly where a label word's token would. (Writing the mask's name into the
    text is not the same: whether it takes the space before it along differs between tokenizers.)

    Raises:
        ConfigError: no mask token, a word of several tokens, or two words with the same token.
    """

    def _prepare(self, words: Sequence[str], template: str) -> None:
        if self.tokenizer.mask_token is None:
            raise ConfigError("task.readout: mask needs a tokenizer with a mask token.")
        default = "{text} {label}, {second}" if self.pairs else "{text} It was {label}."
        self._template = Template(template, default, label="required", pairs=self.pairs)
        self._word = words[0]
        for word in words:
            self._require_single_token(word)
        spelt = [self._template.fill("a", "a", label=word) for word in words]
        filled = [self.tokenizer(text)["input_ids"] for text in spelt]
        places = [
            place for place, tokens in enumerate(zip(*filled, strict=False)) if len(set(tokens)) > 1
        ]
        self._place = places[0] if len(places) == 1 else 0
        word_ids = [ids[self._place] for ids in filled]
        if len(set(word_ids)) < len(words) or len({len(ids) for ids in filled}) > 1:
            raise ConfigError("task.labels: two labels have the same token; choose other words.")
        if self._template.label_is_last:
            self._place -= len(filled[0])  # from the end, which does not move with the text
        self._word_ids = torch.tensor(word_ids)

    def _require_single_token(self, word: str) -> None:
        spaced = self._template.label_space() + word
        tokens = self.tokenizer(spaced, add_special_tokens=False)["input_ids"]
        if len(tokens) != 1 or tokens[0] == self.tokenizer.unk_token_id:
            raise ConfigError(
                f"task.labels: {word!r} is not one token of this vocabulary; choose another word, "
                "or readout: head."
            )

    def _encode(self, text: str, second: str) -> Example:
        found = self._fill_to_length(
            lambda one, other: self._template.fill(one, other, label=self._word),
            text,
            second,
            self.max_tokens,
        )
        place = self._place % len(found.ids)
        ids = list(found.ids)
        ids[place] = self.tokenizer.mask_token_id
        return (replace(found, ids=tuple(ids), positions=(place,)),)

    def _extra_inputs(self, sequences: Sequence[TokenSequence], length: int) -> Inputs:
        positions = torch.tensor([sequence.positions for sequence in sequences])
        return super()._extra_inputs(sequences, length) | {"positions": positions}

    @property
    def _typed(self) -> bool:
        return False  # a filled template is one text to the model

    def scores(self, inputs: Inputs) -> Tensor:
        inputs = dict(inputs)
        positions = inputs.pop("positions")
        logits = logits_at(self.model, inputs, positions)
        return logits[:, 0].index_select(1, self._word_ids.to(logits.device))
