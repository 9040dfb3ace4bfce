"""What all read-outs share: how a text becomes tokens, and tokens a tensor of one fixed shape."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hushtune.config import ConfigError
from hushtune.zo.losses import Inputs


@dataclass(frozen=True)
class TokenSequence:
    """One row of a forward pass.

    Attributes:
        ids: token ids, without padding.
        positions: where scores are read, in the read-out's own sense.
        targets: the tokens whose likelihood is read there.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()


#: An example is one sequence, or one for every label.
Example = tuple[TokenSequence, ...]


def example_length(example: Example) -> int:
    """The columns that an example needs: its longest sequence and one of padding.

    Without the padding, the attention mask of a micro-batch in which every row happens to be full
    has no zero. Models then skip it and take another kernel, so that a row's bits would depend on
    the lengths of the others.
    """
    return max(len(sequence.ids) for sequence in example) + 1


class ReadOut(ABC):
    """Turns a text into scores, one per label.

    Attributes:
        model: the module whose parameters move; in evaluation mode, without dropout.
        sequences: rows of a forward pass per example.
        labels: number of labels.
        max_tokens: longest sequence, one column of padding not counted.
    """

    sequences: int = 1

    def __init__(self, model: nn.Module, tokenizer: Any, labels: int, max_length: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.labels = labels
        self.max_tokens = max_length - 1
        self._special = _special_tokens(tokenizer)

    def encode(self, text: str) -> Example:
        """The text as token sequences, with its end cut off where it is too long.

        Special tokens that the text spells out, such as a mask or an end token, become spaces: a
        text must not steer where the model is read.

        Raises:
            ConfigError: if the template alone is longer than the maximal length.
        """
        return self._encode(self._special.sub(" ", text) if self._special else text)

    @property
    def dummy(self) -> Example:
        """What fills empty rows: an empty text, so that it is as short as any example."""
        return self.encode("")

    @abstractmethod
    def _encode(self, text: str) -> Example:
        """`encode` for a text without special tokens."""

    @abstractmethod
    def scores(self, inputs: Inputs) -> Tensor:
        """(examples, labels) scores; each row depends on its own example alone."""

    def collate(self, examples: Sequence[Example], length: int) -> Inputs:
        """Tensors of shape (examples * sequences, length), padded on the right."""
        sequences = [sequence for example in examples for sequence in example]
        device = next(self.model.parameters()).device
        pad = self.tokenizer.pad_token_id
        ids = torch.full((len(sequences), length), 0 if pad is None else pad, dtype=torch.long)
        mask = torch.zeros((len(sequences), length), dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
            mask[row, : len(sequence.ids)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs |= self._extra_inputs(sequences)
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    def _extra_inputs(self, sequences: Sequence[TokenSequence]) -> Inputs:
        """Further tensors, with one row per sequence."""
        return {}

    def _fill_to_length(
        self, fill: Callable[[str], str], text: str, max_tokens: int
    ) -> tuple[int, ...]:
        """Tokens of `fill(text)`, with the end of `text` cut off until there are few enough.

        What `fill` puts around the text stays whole.
        """
        ids = self.tokenizer(fill(text))["input_ids"]
        excess = len(ids) - max_tokens
        if excess > 0:
            ends = _token_ends(self.tokenizer, text)
            keep = len(ends) - excess
            while keep > 0 and len(ids) > max_tokens:
                ids = self.tokenizer(fill(text[: ends[keep - 1]]))["input_ids"]
                keep -= 1  # for the next round: tokens may merge differently at the cut
        if len(ids) > max_tokens:
            ids = self.tokenizer(fill(""))["input_ids"]
        if len(ids) > max_tokens:
            raise ConfigError(
                f"data.max_length: {self.max_tokens + 1} is not accepted; the template needs at "
                f"least {self.max_tokens + 1 + len(ids) - max_tokens}."
            )
        # A text of no tokens, as a few tokenizers can make, still needs something to attend to.
        return tuple(ids) or (self.tokenizer.pad_token_id or 0,)


def _special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches every special token of a tokenizer, the longest first."""
    tokens = set(tokenizer.all_special_tokens)
    tokens |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens.discard("")
    if not tokens:
        return None
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))


def _token_ends(tokenizer: Any, text: str) -> Sequence[int]:
    """Where each token of the text ends; every character, where the tokenizer cannot tell."""
    if not tokenizer.is_fast:
        return range(1, len(text) + 1)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [end for _, end in encoded["offset_mapping"]]


def logits_at(model: nn.Module, inputs: Mapping[str, Any], positions: Tensor) -> Tensor:
    """(rows, positions, vocabulary) logits at the given (rows, positions) only.

    The vocabulary-sized product is computed where it is needed and nowhere else: rows are picked
    on their way into the output embedding. Models that do not call it get all their logits
    computed and picked afterwards.
    """
    picked = False

    def pick(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal picked
        picked = True
        hidden, *rest = arguments
        return (_gather(hidden, positions), *rest)

    output_embedding: Any = model.get_output_embeddings()  # type: ignore[operator]
    if output_embedding is None:
        return _gather(model(**inputs).logits, positions)
    hook = output_embedding.register_forward_pre_hook(pick)
    try:
        logits = model(**inputs).logits
    finally:
        hook.remove()
    return logits if picked else _gather(logits, positions)


def _gather(values: Tensor, positions: Tensor) -> Tensor:
    """(rows, positions, width) of (rows, columns, width) values."""
    return values.gather(1, positions.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
