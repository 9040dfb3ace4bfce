"""Examples of different lengths, each in the bucket of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.core.examples import Examples, LossesOf
from hushtune.tasks.batches import Batcher, Shape, one_row_each, shapes_of_few
from hushtune.zo.losses import Inputs, MicroBatch

#: The tensors of one example, by name, without an axis for rows.
Example = Mapping[str, Tensor]

#: Public examples that slopes are measured on, at most.
_SLOPE_EXAMPLES = 48

#: Public examples that must fit into a shape for it to be used: one fills, two are told apart.
_LEAST_PUBLIC = 3


class Bucketed(Examples):
    """Examples of different lengths, each padded to the bucket of its own length.

    Args:
        module: the module.
        losses: from the module and a micro-batch to (rows,) losses.
        data: the private examples.
        public: examples of the same kind that say nothing of the private ones; at least three.
        order: the places of the data's rows, unit by unit.
        fills: what follows the end of an example, by name of the tensors whose last axis is as long
            as the example is. All others have the same shape in every example.
        shapes: of the micro-batches, by ascending length; those too short for public examples to
            be tried in them are left out.

    Raises:
        ValueError: if an example is longer than the longest shape has columns.
    """

    def __init__(
        self,
        module: nn.Module,
        losses: LossesOf,
        data: Sequence[Example],
        public: Sequence[Example],
        order: np.ndarray,
        *,
        fills: Mapping[str, float],
        shapes: Sequence[Shape],
    ) -> None:
        super().__init__(module, losses)
        if len(public) < _LEAST_PUBLIC:
            raise ValueError(f"Expected at least {_LEAST_PUBLIC} public examples.")
        self._data = data
        self._order = order
        self._fills = fills
        self._public = sorted(public, key=self.columns)
        least = self.columns(self._public[_LEAST_PUBLIC - 1])
        self.shapes = [shape for shape in shapes if shape.length >= least]
        if not self.shapes:
            raise ValueError("Expected public examples that are no longer than the longest shape.")
        self._batcher = self._batcher_of(data, self.shapes)

    def columns(self, example: Example) -> int:
        """Columns that an example needs: its length and one of padding.

        Without the padding, the attention mask of a micro-batch in which every row happens to be
        full has no zero. Models then skip it and take another kernel.
        """
        lengths = [example[name].shape[-1] for name in self._fills if name in example]
        return max(lengths) + 1 if lengths else 1

    def micro_batches(self, rows: np.ndarray) -> Iterator[MicroBatch]:
        yield from self._batches(self._batcher, self._order[rows])

    def public_batches(self) -> list[MicroBatch]:
        step = -(-len(self._public) // _SLOPE_EXAMPLES)
        few = self._public[::step]
        small = shapes_of_few(self.shapes)
        return list(self._batches(self._batcher_of(few, small), np.arange(len(few))))

    def of_public(self, shape: Shape, numbers: Sequence[int]) -> Inputs:
        return self._collated([self._numbered(shape, each) for each in numbers], shape.length)

    def unpadded(self, shape: Shape, number: int) -> Inputs:
        """A row of `of_public` on its own, as long as it is."""
        example = self._numbered(shape, number)
        return self._collated([example], self.columns(example) - 1)

    def _numbered(self, shape: Shape, number: int) -> Example:
        """The shortest public example is 0; from 1 on, the others that fit, the longest first."""
        if number == 0:
            return self._public[0]
        fitting = [each for each in self._public[1:] if self.columns(each) <= shape.length]
        return fitting[::-1][(number - 1) % len(fitting)]

    def separate(self, coupled: Sequence[Shape]) -> None:
        self.shapes = one_row_each(self.shapes, coupled)
        self._batcher = self._batcher_of(self._data, self.shapes)

    def described(self) -> dict[str, Any]:
        return {"micro_batches": [[shape.rows, shape.length] for shape in self.shapes]}

    def _batcher_of(self, examples: Sequence[Example], shapes: list[Shape]) -> Batcher[Example]:
        return Batcher(examples, self.columns, shapes, dummy=self._public[0])

    def _batches(self, batcher: Batcher[Example], chosen: np.ndarray) -> Iterator[MicroBatch]:
        for places, examples, shape in batcher.batches(chosen):
            yield MicroBatch(places, self._collated(examples, shape.length))

    def _collated(self, examples: Sequence[Example], length: int) -> Inputs:
        device = next(self.module.parameters()).device
        return {
            name: torch.stack([self._padded(name, each[name], length) for each in examples]).to(
                device
            )
            for name in examples[0]
        }

    def _padded(self, name: str, tensor: Tensor, length: int) -> Tensor:
        if name not in self._fills:
            return tensor
        padded = tensor.new_full((*tensor.shape[:-1], length), self._fills[name])
        padded[..., : tensor.shape[-1]] = tensor
        return padded
