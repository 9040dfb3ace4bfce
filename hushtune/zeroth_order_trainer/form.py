"""What the examples of a data set look like, and made-up ones that look the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hushtune.config import ConfigError
from hushtune.core.bucketed import Example
from hushtune.tasks.batches import Shape

#: What a position is that no loss is computed at, as everywhere in transformers.
IGNORED = -100

_MASKS = ("attention_mask", "decoder_attention_mask")
_TOKENS = ("input_ids", "decoder_input_ids")

#: Tensors whose last axis is as long as the text.
_SEQUENCES = (*_TOKENS, *_MASKS, "labels", "token_type_ids", "position_ids")

#: Those that the decoder has for its own text.
_OF_DECODER = ("labels", "decoder_input_ids", "decoder_attention_mask")

#: Tokens of the shortest example that is made up: one predicts the other.
_SHORTEST = 2


@dataclass(frozen=True)
class Form:
    """What every example has.

    Attributes:
        dtypes: by name.
        shapes: by name, without an axis for rows; of a sequence, without its last axis too.
        fills: what follows the end of an example, by name of its sequences.
        two_texts: whether an encoder and a decoder have texts of their own.
    """

    dtypes: Mapping[str, torch.dtype]
    shapes: Mapping[str, tuple[int, ...]]
    fills: Mapping[str, int]
    two_texts: bool

    @classmethod
    def of(cls, example: Example, *, pad: int, two_texts: bool) -> Form:
        """The form of an example.

        Args:
            pad: the padding token.
        """
        sequences = {
            name
            for name in _SEQUENCES
            if name in example
            and example[name].dim() >= 1
            and not example[name].dtype.is_floating_point
        }
        fills = dict.fromkeys(sorted(sequences), 0)
        fills |= {name: pad for name in _TOKENS if name in sequences}
        fills |= {"labels": IGNORED} if "labels" in sequences else {}
        shapes = {
            name: tuple(tensor.shape[:-1] if name in sequences else tensor.shape)
            for name, tensor in example.items()
        }
        dtypes = {name: tensor.dtype for name, tensor in example.items()}
        return cls(dtypes, shapes, fills, two_texts)

    def length(self, example: Example) -> int:
        """Columns of the longest sequence."""
        return max((example[name].shape[-1] for name in self.fills), default=0)

    def trimmed(self, example: Example) -> Example:
        """Without padding at the end, so that a short text does not pay for the longest.

        Columns whose labels count stay, masked or not.
        """
        own = [name for name in self.fills if not (self.two_texts and name in _OF_DECODER)]
        groups = [own, [name for name in self.fills if name not in own]]
        trimmed = dict(example)
        for names, mask in zip(groups, ("attention_mask", "labels"), strict=True):
            if mask not in names or len({example[name].shape[-1] for name in names}) > 1:
                continue
            counts = torch.zeros(example[mask].shape[-1], dtype=torch.bool)
            for name in {"attention_mask", "labels"} & set(names):
                counts |= (example[name] != self.fills[name]).reshape(-1, len(counts)).any(dim=0)
            end = max(int(counts.nonzero()[-1]) + 1 if counts.any() else 1, 1)
            trimmed |= {name: example[name][..., :end] for name in names}
        return trimmed


@dataclass(frozen=True)
class Alphabet:
    """What numbers stand for in a model.

    Attributes:
        tokens: that have an embedding; None: the model looks up none.
        plain: those of them that are no special tokens.
        types: kinds of text that a token may belong to.
        positions: that a token may have; None: no limit.
        classes: numbers that a label may be; None: nobody knows.
    """

    tokens: int | None
    plain: np.ndarray
    types: int
    positions: int | None
    classes: int | None = None

    def problem(self, form: Form, example: Example) -> str | None:
        """Why an example would end a step, if it would; the ledger would tell who was sampled."""
        limits = dict.fromkeys(_TOKENS, self.tokens) | dict.fromkeys(_MASKS, 2)
        limits |= {"token_type_ids": self.types, "position_ids": self.positions}
        limits |= {"labels": self.classes}
        for name, limit in limits.items():
            tensor = example.get(name)
            if tensor is None or limit is None or form.dtypes[name].is_floating_point:
                continue
            allowed = (tensor >= 0) & (tensor < limit)
            if name in form.fills and name == "labels":
                allowed |= tensor == IGNORED
            if not bool(allowed.all()):
                return f"{name} is not from 0 to {limit - 1}"
        return None


def make_up(form: Form, alphabet: Alphabet, shapes: Sequence[Shape], *, seed: int) -> list[Example]:
    """Examples of random tokens from a public generator: enough to fill a micro-batch of any shape.

    Half of those for a shape are as long as it allows.

    Raises:
        ConfigError: naming what cannot be made up.
    """
    draw = np.random.Generator(np.random.Philox(seed % 2**64))
    lengths = [_SHORTEST] * 3
    for shorter, shape in zip(
        [_SHORTEST, *(shape.length for shape in shapes)], shapes, strict=False
    ):
        longest = max(_SHORTEST, shape.length - 1)
        between = draw.integers(min(shorter, longest), longest + 1, shape.rows)
        lengths += [int(each) if row % 2 else longest for row, each in enumerate(between)]
    return [_example(form, alphabet, length, number, draw) for number, length in enumerate(lengths)]


def _example(
    form: Form, alphabet: Alphabet, length: int, number: int, draw: np.random.Generator
) -> Example:
    made: dict[str, Tensor] = {}
    for name, dtype in form.dtypes.items():
        of_decoder = form.two_texts and name in _OF_DECODER
        own = max(_SHORTEST, length // 2) if of_decoder else length
        shape = form.shapes[name] + ((own,) if name in form.fills else ())
        made[name] = torch.as_tensor(_values(name, form, alphabet, shape, number, draw)).to(dtype)
    if _copies_text(form, alphabet):
        made["labels"] = made["input_ids"].to(form.dtypes["labels"])
    return made


def _copies_text(form: Form, alphabet: Alphabet) -> bool:
    """Whether labels are tokens of the text itself."""
    of_text = "labels" in form.fills and "input_ids" in form.fills and not form.two_texts
    return of_text and (alphabet.classes or 0) >= (alphabet.tokens or 0) > 0


def _values(
    name: str,
    form: Form,
    alphabet: Alphabet,
    shape: tuple[int, ...],
    number: int,
    draw: np.random.Generator,
) -> np.ndarray:
    if name in _TOKENS:
        return draw.choice(alphabet.plain, shape)
    if name in _MASKS:
        return np.ones(shape)
    if name == "token_type_ids":
        return np.zeros(shape)
    if name == "position_ids":
        return np.broadcast_to(np.arange(shape[-1]), shape)
    if form.dtypes[name].is_floating_point:
        several = name == "labels" and shape == (alphabet.classes,) and shape != (1,)
        return draw.integers(0, 2, shape) if several else draw.standard_normal(shape)
    if name == "labels" and alphabet.classes is not None:
        if name in form.fills:
            return draw.integers(0, alphabet.classes, shape)
        return np.full(shape, number % alphabet.classes)
    raise ConfigError(
        f"public_dataset: is needed, since nothing is known of {name} that examples could be made "
        "up from; give at least three public rows."
    )
