"""From rows of a data set to examples, each collated on its own.

What a collator makes of a row must be a function of that row alone, or adding a person would change
what others contribute. So every row is collated twice, in the opposite order and with other random
numbers; a collator that gives something else the second time is refused. Whatever it might draw
from a global generator without being noticed, it draws for each row from the same public seed.
"""

from __future__ import annotations

import contextlib
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from hushtune.config import ConfigError
from hushtune.core.bucketed import Example
from hushtune.privacy.steps import unspoken
from hushtune.tasks import cells
from hushtune.zeroth_order_trainer.form import Alphabet, Form

#: A list of rows to tensors whose first axis is the row's.
Collator = Callable[[list[Any]], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Collation:
    """Makes examples of a data set's rows.

    Attributes:
        collator: is given one row at a time.
        columns: that it is given; None: all but the unit.
        unit: column of the unit of privacy, which it is not given.
        attends: whether the model takes an attention mask, which is then always there.
        pad: the padding token.
        two_texts: whether an encoder and a decoder have texts of their own.
    """

    collator: Collator
    columns: frozenset[str] | None
    unit: str | None
    attends: bool
    pad: int
    two_texts: bool

    def examples(self, rows: Any, *, name: str) -> tuple[list[Example], Form]:
        """The examples of all rows, and the form that they have in common.

        Args:
            rows: a sequence of dictionaries, or a `datasets.Dataset`.
            name: what the person calls them.

        Raises:
            ConfigError: naming the row.
        """
        count = _count(rows, name)
        with _global_generators_kept(), silent_libraries():
            made = [self._collated(rows[place], name, place, seed=0) for place in range(count)]
            for place in reversed(range(count)):
                again = self._collated(rows[place], name, place, seed=1)
                if not _same(made[place], again):
                    raise ConfigError(
                        "data_collator: makes something else of the same row the next time; mask "
                        "or augment the data set once, before training, or use a collator without "
                        "chance and without memory."
                    )
        form = Form.of(made[0], pad=self.pad, two_texts=self.two_texts)
        for place, example in enumerate(made):
            if Form.of(example, pad=self.pad, two_texts=self.two_texts) != form:
                raise ConfigError(
                    f"{name}, row {place + 1}: has not the columns, number formats and shapes of "
                    "row 1; expected the same of every row, but for the length of its text."
                )
        return [form.trimmed(example) for example in made], form

    def units(self, rows: Any, *, name: str) -> list[str] | None:
        """The unit of each row, as `hushtune train` names it; None: every row is one.

        Raises:
            DataError: naming a row without one.
        """
        unit = self.unit
        if unit is None:
            return None
        if unit in getattr(rows, "column_names", ()):
            rows = rows.select_columns(unit)  # whatever else there is may be slow to decode

        def name_at(place: int) -> str:
            row = {
                key: value.item() if isinstance(value, Tensor | np.generic) else value
                for key, value in rows[place].items()
            }
            return cells.name_of(f"{name}, row {place + 1}", row, unit, needed_for="unit")

        return [name_at(place) for place in range(len(rows))]

    def _collated(self, row: Any, name: str, place: int, *, seed: int) -> Example:
        if not isinstance(row, Mapping):
            raise ConfigError(
                f"{name}, row {place + 1}: is a {type(row).__name__}; expected a dictionary."
            )
        kept = {
            key: value
            for key, value in row.items()
            if key != self.unit and (self.columns is None or key in self.columns)
        }
        _seed_global_generators(seed)
        example: dict[str, Tensor] = {}
        for key, value in self._tensors(kept, f"{name}, row {place + 1}").items():
            if not isinstance(value, Tensor) or value.dim() < 1 or len(value) != 1:
                raise ConfigError(
                    f"data_collator: made no tensor with one row of {key!r} in {name}, row "
                    f"{place + 1}; expected tensors whose first axis is that of the rows."
                )
            example[key] = value[0].detach().cpu()
        if self.attends and "input_ids" in example and "attention_mask" not in example:
            example["attention_mask"] = torch.ones_like(example["input_ids"])
        return example

    def _tensors(self, row: dict[str, Any], place: str) -> dict[str, Any]:
        """What the collator makes of a row; an error says nothing of what is in it."""
        return unspoken(
            lambda: dict(self.collator([row])),
            place + ": data_collator failed with {}.",
            ConfigError,
        )


def require_usable(
    examples: Sequence[Example], form: Form, alphabet: Alphabet, *, longest: int, name: str
) -> None:
    """Refuse a row that would end a step, or is too long for any micro-batch.

    Raises:
        ConfigError: naming the row.
    """
    for place, example in enumerate(examples):
        problem = alphabet.problem(form, example)
        if form.length(example) > longest:
            problem = f"is longer than max_length, {longest}; cut it when it is tokenised"
        if problem is not None:
            raise ConfigError(f"{name}, row {place + 1}: {problem}.")


@contextlib.contextmanager
def silent_libraries() -> Iterator[None]:
    """While private rows pass: libraries note lengths of texts, and what else they wonder at."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(before)


def _count(rows: Any, name: str) -> int:
    if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__"):
        raise ConfigError(
            f"{name}: {type(rows).__name__} is not accepted; it must be a Dataset or a list of "
            "dictionaries, since rows are sampled by number."
        )
    if not len(rows):
        raise ConfigError(f"{name}: has no rows.")
    return len(rows)


def _same(one: Example, other: Example) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _seed_global_generators(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@contextlib.contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Whatever draws numbers after this draws what it would have drawn."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
