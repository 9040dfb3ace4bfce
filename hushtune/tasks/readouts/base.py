"""What all read-outs share: how a text becomes tokens, and tokens a tensor of one fixed shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
    """An example's own length in tokens: that of its longest sequence."""
    return max(len(sequence.ids) for sequence in example)


class ReadOut(ABC):
    """Turns a text into scores, one per label.

    Attributes:
        model: the module whose parameters move; in evaluation mode, without dropout.
        sequences: rows of a forward pass per example.
        labels: number of labels.
    """

    sequences: int = 1

    def __init__(self, model: nn.Module, tokenizer: Any, labels: int, max_length: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.labels = labels
        self.max_length = max_length

    @abstractmethod
    def encode(self, text: str) -> Example:
        """The text as token sequences, cut to `max_length`."""

    @abstractmethod
    def scores(self, inputs: Inputs) -> Tensor:
        """(examples, labels) scores; each row depends on its own example alone."""

    def collate(self, examples: Sequence[Example], length: int) -> Inputs:
        """Tensors of shape (examples * sequences, length), padded on the right."""
        sequences = [sequence for example in examples for sequence in example]
        device = next(self.model.parameters()).device
        pad = self.tokenizer.pad_token_id
        pad = 0 if pad is None else pad
        ids = torch.full((len(sequences), length), pad, dtype=torch.long)
        mask = torch.zeros((len(sequences), length), dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
            mask[row, : len(sequence.ids)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs |= self.extra_inputs(sequences)
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    def extra_inputs(self, sequences: Sequence[TokenSequence]) -> Inputs:
        """Further tensors, with one row per sequence."""
        return {}


def fill_to_length(
    tokenizer: Any, fill: Callable[[str], str], text: str, max_length: int
) -> tuple[int, ...]:
    """Tokens of `fill(text)`, with the end of `text` cut off until they are at most `max_length`.

    What `fill` puts around the text stays whole.

    Raises:
        ConfigError: if `fill("")` alone is longer than `max_length`.
    """
    ids = tokenizer(fill(text))["input_ids"]
    excess = len(ids) - max_length
    if excess <= 0:
        return tuple(ids)
    ends = [end for _, end in tokenizer(text, add_special_tokens=False,
                                        return_offsets_mapping=True)["offset_mapping"]]
    keep = len(ends) - excess
    while keep > 0:
        ids = tokenizer(fill(text[: ends[keep - 1]]))["input_ids"]
        if len(ids) <= max_length:
            return tuple(ids)
        keep -= 1  # tokens merge differently at the cut
    ids = tokenizer(fill(""))["input_ids"]
    if len(ids) > max_length:
        raise ConfigError(
            f"data.max_length: {max_length} is not accepted; the template alone has {len(ids)} "
            "tokens."
        )
    return tuple(ids)


def logits_at(model: nn.Module, inputs: Inputs, positions: Tensor) -> Tensor:
    """(rows, positions, vocabulary) logits at the given (rows, positions) only.

    The vocabulary-sized product is computed where it is needed and nowhere else: rows are picked
    on their way into the output embedding.
    """
    index = positions.unsqueeze(-1)

    def pick(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = arguments
        return (hidden.gather(1, index.expand(-1, -1, hidden.shape[-1])), *rest)

    output_embedding: Any = model.get_output_embeddings()  # type: ignore[operator]
    hook = output_embedding.register_forward_pre_hook(pick)
    try:
        return model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
