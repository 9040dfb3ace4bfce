"""Label words as the continuation of a prompt, by the log-likelihood of the whole label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hushtune.config import ConfigError
from hushtune.tasks.readouts.base import Example, ReadOut, TokenSequence, fill_to_length, logits_at
from hushtune.zo.losses import Inputs

_DEFAULT_TEMPLATE = "{text} It was {label}."


class CausalReadOut(ReadOut):
    """Scores are log p(label | prompt) under a causal language model.

    Where every label is a single token, one forward pass of the prompt scores all of them: their
    logits differ from their log-likelihoods by the same constant. Otherwise every label has its
    own sequence.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, words: Sequence[str], template: str, max_length: int
    ) -> None:
        super().__init__(model, tokenizer, len(words), max_length)
        self._before, self._words = _prompt(template, words)
        targets = [self._label_tokens(word) for word in self._words]
        self._single = torch.tensor(targets)[:, 0] if all(len(t) == 1 for t in targets) else None
        self._sizes = {word: len(t) for word, t in zip(self._words, targets, strict=True)}
        self._width = max(self._sizes.values())
        if self._single is None:
            self.sequences = len(words)
        elif len(set(targets)) < len(words):
            raise ConfigError("task.labels: two labels have the same token; choose other words.")

    def _label_tokens(self, word: str) -> tuple[int, ...]:
        """The tokens that `word` adds to the prompt."""
        prompt = self._before.format(text="a")
        before = _without_end(self.tokenizer, self.tokenizer(prompt)["input_ids"])
        whole = _without_end(self.tokenizer, self.tokenizer(prompt + word)["input_ids"])
        return tuple(whole[len(os.path.commonprefix([before, whole])) :])

    def encode(self, text: str) -> Example:
        if self._single is not None:
            ids = self._fill("", text)
            return (TokenSequence(ids, positions=(len(ids) - 1,)),)
        return tuple(self._scored(text, word) for word in self._words)

    def _fill(self, word: str, text: str) -> tuple[int, ...]:
        ids = fill_to_length(
            self.tokenizer,
            lambda part: self._before.format(text=part) + word,
            text,
            # Room for the longest label, so that all labels see nearly the same cut.
            self.max_length if not word else self.max_length - self._width + self._sizes[word],
        )
        return _without_end(self.tokenizer, ids)

    def _scored(self, text: str, word: str) -> TokenSequence:
        ids = self._fill(word, text)
        size = self._sizes[word]
        start = len(ids) - size
        # A position predicts the token after it. Shorter labels repeat their first position and
        # ignore it: a target of -1 counts as nothing.
        padding = self._width - size
        positions = tuple(range(start - 1, len(ids) - 1)) + (start - 1,) * padding
        return TokenSequence(ids, positions, ids[start:] + (-1,) * padding)

    def extra_inputs(self, sequences: Sequence[TokenSequence]) -> Inputs:
        inputs = {"positions": torch.tensor([sequence.positions for sequence in sequences])}
        if self._single is None:
            inputs["targets"] = torch.tensor([sequence.targets for sequence in sequences])
        return inputs

    def scores(self, inputs: Inputs) -> Tensor:
        inputs = dict(inputs)
        positions = inputs.pop("positions")
        if self._single is not None:
            logits = logits_at(self.model, inputs, positions)
            return logits[:, 0].index_select(1, self._single.to(logits.device))
        targets = inputs.pop("targets")
        likelihood = log_likelihood(logits_at(self.model, inputs, positions), targets)
        return likelihood.view(-1, self.labels)


class EncoderDecoderReadOut(ReadOut):
    """Scores are log p(label | text) under an encoder-decoder model: text in, label out.

    The template's part before {label} goes to the encoder; the decoder is scored on the label's
    tokens, the end token included. The encoder runs once per example.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, words: Sequence[str], template: str, max_length: int
    ) -> None:
        super().__init__(model, tokenizer, len(words), max_length)
        self._before, words = _prompt(template, [word.strip() for word in words])
        targets = [tokenizer(text_target=word.strip())["input_ids"] for word in words]
        width = max(len(tokens) for tokens in targets)
        self._targets = torch.tensor([tokens + [-1] * (width - len(tokens)) for tokens in targets])
        config: Any = model.config
        start = torch.full((len(words), 1), config.decoder_start_token_id or 0)
        self._decoder_inputs = torch.cat([start, self._targets[:, :-1].clamp(min=0)], dim=1)

    def encode(self, text: str) -> Example:
        ids = fill_to_length(
            self.tokenizer,
            lambda part: self._before.format(text=part).rstrip(),
            text,
            self.max_length,
        )
        return (TokenSequence(ids),)

    def scores(self, inputs: Inputs) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        model: Any = self.model
        hidden = model.get_encoder()(**inputs).last_hidden_state
        rows, device = len(hidden), hidden.device
        output = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=_each(hidden, self.labels)),
            attention_mask=_each(inputs["attention_mask"], self.labels),
            decoder_input_ids=self._decoder_inputs.to(device).repeat(rows, 1),
            use_cache=False,
        )
        targets = self._targets.to(device).repeat(rows, 1)
        return log_likelihood(output.logits, targets).view(rows, self.labels)


def log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """(rows,) summed log-likelihoods of (rows, positions) targets; a target of -1 adds nothing."""
    each = logits.float().log_softmax(dim=-1).gather(2, targets.clamp(min=0).unsqueeze(-1))
    return torch.where(targets >= 0, each.squeeze(-1), 0.0).sum(dim=1)


def _prompt(template: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """The template up to {label}, and the words as they continue it."""
    template = template or _DEFAULT_TEMPLATE
    before = template.split("{label}")[0]
    stripped = before.rstrip()
    # Tokenizers attach a space to the word after it, so it goes with the label.
    return stripped, [before[len(stripped) :] + word for word in words]


def _without_end(tokenizer: Any, ids: Sequence[int]) -> tuple[int, ...]:
    """Without the end token that some tokenizers append."""
    ids = tuple(ids)
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id and len(ids) > 1 else ids


def _each(tensor: Tensor, times: int) -> Tensor:
    """Every row `times` times in a row."""
    return tensor.repeat_interleave(times, dim=0)
