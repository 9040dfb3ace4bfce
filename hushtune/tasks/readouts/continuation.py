"""Label words as the continuation of a prompt, by the log-likelihood of the whole label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hushtune.config import ConfigError
from hushtune.models.virtual import encode
from hushtune.tasks.readouts.base import (
    Example,
    TokenSequence,
    common_start,
    logits_at,
    without_end,
)
from hushtune.tasks.readouts.classifying import ClassifyingReadOut
from hushtune.tasks.readouts.likelihood import NO_TARGET, log_likelihood
from hushtune.tasks.readouts.template import Template
from hushtune.zo.losses import Inputs


class CausalReadOut(ClassifyingReadOut):
    """Scores are log p(label | prompt) under a causal language model.

    Where every label is a single token, one forward pass of the prompt scores all of them: their
    logits differ from their log-likelihoods by the same constant. Otherwise every label has its
    own sequence.
    """

    def _prepare(self, words: Sequence[str], template: str) -> None:
        checked = _label_last(template, pairs=self.pairs)
        self._prompt = checked.before_label()
        self._words = [checked.label_space() + word for word in words]
        targets = [self._label_tokens(word) for word in self._words]
        _refuse_equal(targets)
        self._sizes = [len(tokens) for tokens in targets]
        self._width = max(self._sizes)
        self._single = torch.tensor(targets)[:, 0] if self._width == 1 else None
        if self._single is None:
            self.sequences = len(words)

    def _label_tokens(self, word: str) -> tuple[int, ...]:
        """The tokens that `word` adds to the prompt."""
        prompt = self._prompt.fill("a", "a")
        before = without_end(self.tokenizer, self.tokenizer(prompt)["input_ids"])
        whole = without_end(self.tokenizer, self.tokenizer(prompt + word)["input_ids"])
        return whole[common_start(before, whole) :]

    def _encode(self, text: str, second: str) -> Example:
        if self._single is not None:
            found = self._filled("", text, second, self.max_tokens)
            return (replace(found, positions=(len(found.ids) - 1,)),)
        return tuple(
            self._scored(text, second, word, size)
            for word, size in zip(self._words, self._sizes, strict=True)
        )

    def _scored(self, text: str, second: str, word: str, size: int) -> TokenSequence:
        # Room for the longest label, so that all labels see the same part of the text.
        found = self._filled(word, text, second, self.max_tokens - self._width + size)
        start = len(found.ids) - size
        # A position predicts the token after it. Shorter labels repeat their first position.
        missing = self._width - size
        positions = (*range(start - 1, len(found.ids) - 1), *(start - 1,) * missing)
        targets = found.ids[start:] + (NO_TARGET,) * missing
        return replace(found, positions=positions, targets=targets)

    def _filled(self, word: str, text: str, second: str, most: int) -> TokenSequence:
        def fill(one: str, other: str) -> str:
            return self._prompt.fill(one, other) + word

        found = self._fill_to_length(fill, text, second, most)
        return replace(found, ids=without_end(self.tokenizer, found.ids))

    def _extra_inputs(self, sequences: Sequence[TokenSequence], length: int) -> Inputs:
        inputs = {"positions": torch.tensor([sequence.positions for sequence in sequences])}
        if self._single is None:
            inputs["targets"] = torch.tensor([sequence.targets for sequence in sequences])
        return inputs

    def scores(self, inputs: Inputs) -> Tensor:
        inputs = dict(inputs)
        positions = inputs.pop("positions")
        targets = inputs.pop("targets", None)
        logits = logits_at(self.model, inputs | {"use_cache": False}, positions)
        if self._single is not None:
            return logits[:, 0].index_select(1, self._single.to(logits.device))
        assert targets is not None
        return log_likelihood(logits, targets).view(-1, self.labels)


class EncoderDecoderReadOut(ClassifyingReadOut):
    """Scores are log p(label | text) under an encoder-decoder model: text in, label out.

    The template's part before {label} goes to the encoder; the decoder is scored on the label's
    tokens, the end token included. The encoder runs once per example.
    """

    def _prepare(self, words: Sequence[str], template: str) -> None:
        self._prompt = _label_last(template, pairs=self.pairs).before_label()
        targets = [self.tokenizer(text_target=word.strip())["input_ids"] for word in words]
        _refuse_equal([tuple(tokens) for tokens in targets])
        width = max(len(tokens) for tokens in targets)
        self._targets = torch.tensor(
            [tokens + [NO_TARGET] * (width - len(tokens)) for tokens in targets]
        )
        config: Any = self.model.config
        start = torch.full((len(words), 1), config.decoder_start_token_id or 0)
        self._decoder_inputs = torch.cat([start, self._targets[:, :-1].clamp(min=0)], dim=1)

    def _encode(self, text: str, second: str) -> Example:
        return (self._fill_to_length(self._prompt.fill, text, second, self.max_tokens),)

    def scores(self, inputs: Inputs) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        model: Any = self.model
        hidden = encode(model, inputs)
        rows, device = len(hidden), hidden.device
        output = model(
            input_ids=_each(inputs["input_ids"], self.labels),  # PEFT counts their rows
            encoder_outputs=BaseModelOutput(last_hidden_state=_each(hidden, self.labels)),
            attention_mask=_each(inputs["attention_mask"], self.labels),
            decoder_input_ids=self._decoder_inputs.to(device).repeat(rows, 1),
            use_cache=False,
        )
        targets = self._targets.to(device).repeat(rows, 1)
        return log_likelihood(output.logits, targets).view(rows, self.labels)


def _label_last(template: str, *, pairs: bool) -> Template:
    """What follows {label} is never seen: a model that writes is not asked about it."""
    default = "{text} {second} {label}" if pairs else "{text} It was {label}."
    return Template(template, default, label="last", pairs=pairs)


def _refuse_equal(targets: Sequence[tuple[int, ...]]) -> None:
    if not all(targets) or len(set(targets)) < len(targets):
        raise ConfigError(
            "task.labels: two labels have the same tokens, or one has none; choose other words."
        )


def _each(tensor: Tensor, times: int) -> Tensor:
    """Every row `times` times in a row."""
    return tensor.repeat_interleave(times, dim=0)
