"""What the frozen lower layers return for each example, kept in memory from step to step.

Where examples do not touch each other, the output of the last frozen layer is the same bits in
every step of a run, whatever micro-batch the example is in. So it is computed once, cut into
examples, and put together again for any later micro-batch of the same shape. Nothing here is
written to disk: these are private values, as the examples themselves are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class NotByExample(ValueError):
    """An output that does not consist of one part per example."""


class _Whole(NamedTuple):
    """How a tensor is made of parts: where it belongs, or what it is, if not made of any."""

    device: torch.device
    common: Tensor | None


class _Kept(NamedTuple):
    """One example's part, on the CPU, and the form of the micro-batch that it is from."""

    part: Any
    examples: int
    form: Any


class KeptOutputs:
    """Outputs of frozen layers by row of the data, as many as there is room for.

    Args:
        limit: bytes that the outputs may take. Which rows are kept changes no number of a run,
            only its time, so the limit need not be the same on every machine.

    Attributes:
        bytes: bytes that they take.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: dict[int, _Kept] = {}
        self._common: list[Tensor] = []
        self.bytes: int = 0

    def add(self, rows: np.ndarray, outputs: Any, examples: int) -> None:
        """Keep the outputs of a micro-batch's first rows.

        Args:
            rows: the rows of the data that they belong to.
            outputs: nested lists and tuples of tensors, or None; the first axis of each tensor
                has one or more places for every example of the micro-batch, in their order, or
                a single one for all of them, as position biases have.
            examples: examples in the micro-batch, dummies included.

        Raises:
            NotByExample: if they are not of this form.
        """
        form = _merged([outputs], lambda whole: self._form(whole[0], examples))
        size = _bytes(_merged([outputs], lambda whole: whole[0][: _sequences(whole[0], examples)]))
        fitting = rows[: max(0, self._limit - self.bytes) // max(1, size)]
        # One copy for all of them: many small ones between what passes allocate and free would keep
        # that from being used again, and views of the whole would keep rows that are dummies.
        copied = _merged([outputs], lambda whole: _first(whole[0], len(fitting), examples))
        for place, row in enumerate(fitting):
            part = _merged(
                [outputs, copied], lambda both, at=place: _part(both[0], both[1], at, examples)
            )
            self._rows[int(row)] = _Kept(part, examples, form)
        self.bytes += _bytes(copied)

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) whether each row's outputs are kept."""
        return np.array([int(row) in self._rows for row in rows], dtype=bool)

    def outputs(self, rows: np.ndarray) -> Any:
        """The outputs of a micro-batch with these rows first, zeros standing for its dummies.

        None if one of them is not kept.
        """
        if not self.holds(rows).all():
            return None
        kept = [self._rows[int(row)] for row in rows]
        missing = kept[0].examples - len(kept)

        def join(values: Sequence[Any]) -> Tensor:
            *parts, whole = values
            if whole.common is not None:
                return whole.common
            return torch.cat([*parts, *[torch.zeros_like(parts[0])] * missing]).to(whole.device)

        return _merged([*(each.part for each in kept), kept[0].form], join)

    def _form(self, whole: Tensor, examples: int) -> _Whole:
        if not _is_common(whole, examples):
            return _Whole(whole.device, None)
        for common in self._common:
            if _equal(common, whole):
                return _Whole(whole.device, common)
        self._common.append(whole)
        self.bytes += _bytes(whole)
        return _Whole(whole.device, whole)


def repeated(outputs: Any, times: int, examples: int) -> Any:
    """The outputs of a micro-batch that stands so many times one below the other."""

    def repeat(wholes: Sequence[Tensor]) -> Tensor:
        return wholes[0] if _is_common(wholes[0], examples) else torch.cat([*wholes] * times)

    return _merged([outputs], repeat)


def _is_common(whole: Tensor, examples: int) -> bool:
    return examples > 1 and whole.dim() > 0 and whole.shape[0] == 1


def _sequences(whole: Tensor, examples: int) -> int:
    """How many places of the first axis belong to an example; none of what all have in common."""
    if _is_common(whole, examples):
        return 0
    if whole.dim() == 0 or whole.shape[0] % examples:
        raise NotByExample("Expected an output with parts for every example of a micro-batch.")
    return whole.shape[0] // examples


def _first(whole: Tensor, count: int, examples: int) -> Tensor:
    """A copy, on the CPU, of what belongs to so many examples."""
    return whole[: count * _sequences(whole, examples)].cpu().clone()


def _part(whole: Tensor, copied: Tensor, place: int, examples: int) -> Tensor:
    """(sequences, …) what belongs to one example, of the copy."""
    sequences = _sequences(whole, examples)
    return copied[place * sequences : (place + 1) * sequences]


def _merged(values: Sequence[Any], merge: Callable[[Sequence[Any]], Any]) -> Any:
    """One value of the first one's form; what stands at its tensors' places is made of theirs."""
    first = values[0]
    if isinstance(first, Tensor):
        return merge(values)
    if type(first) in (list, tuple):
        return type(first)(_merged(parts, merge) for parts in zip(*values, strict=True))
    if first is None:
        return None
    raise NotByExample(f"Expected an output of tensors, got {type(first).__name__}.")


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return 0 if value is None else sum(map(_bytes, value))


def _equal(one: Tensor, other: Tensor) -> bool:
    same_kind = one.shape == other.shape and one.device == other.device
    return same_kind and torch.equal(one, other)
