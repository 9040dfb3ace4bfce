"""What all read-outs share: how a text becomes tokens, and tokens a tensor of one fixed shape."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hushtune.models.virtual import columns_in_front
from hushtune.zo.losses import Inputs


@dataclass(frozen=True)
class TokenSequence:
    """One row of a forward pass.

    Attributes:
        ids: token ids, without padding.
        positions: where scores are read, in the read-out's own sense.
        targets: the tokens whose likelihood is read there.
        types: which of two texts each token is of, for models that are told; empty: the first.
        cut: whether a part of the text did not fit. It is no part of what the model sees.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    types: tuple[int, ...] = ()
    cut: bool = field(default=False, compare=False)


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
    """Turns a text into scores, one per label, and scores into losses.

    Attributes:
        model: the module whose parameters move; in evaluation mode, without dropout.
        sequences: rows of a forward pass per example.
        labels: number of labels; of a task without labels, one.
        max_tokens: longest sequence, one column of padding not counted.
    """

    sequences: int = 1

    def __init__(self, model: nn.Module, tokenizer: Any, labels: int, max_length: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.labels = labels
        self.max_tokens: int = max_length - 1
        self._special = _special_tokens(tokenizer)

    @abstractmethod
    def encode(self, text: Any) -> Example:
        """The text as token sequences, cut where it is too long.

        Special tokens that the text spells out, such as a mask or an end token, become spaces: a
        text must not steer where the model is read.

        Raises:
            ConfigError: if what surrounds the text alone is longer than the maximal length.
        """

    @abstractmethod
    def text_of(self, words: str) -> Any:
        """Public words as a text of the kind that is encoded; no words make the shortest."""

    @abstractmethod
    def scores(self, inputs: Inputs) -> Tensor:
        """(examples, labels) scores; each row depends on its own example alone."""

    @abstractmethod
    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        """(…, examples) float64 losses of (…, examples, labels) scores."""

    @property
    def dummy(self) -> Example:
        """What fills empty rows: as short as any example."""
        return self.encode(self.text_of(""))

    def in_one_pass(self) -> ReadOut:
        """A copy that calls each of the model's layers once a forward pass.

        What follows gradients back through a layer wants that.
        """
        return copy.copy(self)

    def collate(self, examples: Sequence[Example], length: int) -> Inputs:
        """Tensors of shape (examples * sequences, length), padded on the right."""
        sequences = [sequence for example in examples for sequence in example]
        device = next(self.model.parameters()).device
        pad = self.tokenizer.pad_token_id
        inputs = {
            "input_ids": filled([each.ids for each in sequences], length, pad or 0),
            "attention_mask": filled([(1,) * len(each.ids) for each in sequences], length, 0),
        }
        inputs |= self._extra_inputs(sequences, length)
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    def _extra_inputs(self, sequences: Sequence[TokenSequence], length: int) -> Inputs:
        """Further tensors, with one row per sequence."""
        return {}

    def _plain(self, text: str) -> str:
        """The text without special tokens."""
        return self._special.sub(" ", text) if self._special else text


def filled(rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
    """(rows, width) int64: each row with `value` after its end."""
    tensor = torch.full((len(rows), width), value, dtype=torch.long)
    for place, row in enumerate(rows):
        tensor[place, : len(row)] = torch.tensor(row, dtype=torch.long)
    return tensor


def without_end(tokenizer: Any, ids: Sequence[int]) -> tuple[int, ...]:
    """Tokens of a text without the end token that some tokenizers append."""
    # A token on its own is one that begins a text: some models begin and end with the same.
    appended = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id
    return tuple(ids[:-1] if appended else ids)


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    differing = (place for place, (mine, yours) in pairs if mine != yours)
    return next(differing, min(len(one), len(other)))


def _special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches every special token of a tokenizer, the longest first."""
    tokens = set(tokenizer.all_special_tokens)
    tokens |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens.discard("")
    if not tokens:
        return None
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))


def logits_at(model: nn.Module, inputs: Mapping[str, Any], positions: Tensor) -> Tensor:
    """(rows, positions, vocabulary) logits at the given (rows, positions) of the text only.

    The vocabulary-sized product is computed where it is needed and nowhere else: rows are picked
    on their way into the output embedding. Models that do not call it get all their logits
    computed and picked afterwards.
    """
    positions = positions + columns_in_front(model)
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
