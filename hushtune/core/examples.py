"""Private and public examples as tensors, with the module whose losses are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.tasks.batches import Shape
from hushtune.units import Units, group
from hushtune.zo.losses import Inputs, MicroBatch
from hushtune.zo.probe import ProbeError

#: From the module and a micro-batch to one loss for each of its rows.
LossesOf = Callable[[Any, Inputs], Tensor]


@dataclass(frozen=True)
class Rows(Units):
    """The rows of the data, unit by unit.

    Attributes:
        order: the places in the data that the rows have.
        unit_of_row: (rows,) int64, the unit of each.
    """

    order: np.ndarray
    unit_of_row: np.ndarray

    @classmethod
    def of(cls, count: int, units: Sequence[Hashable] | None) -> Rows:
        """So many rows, with the unit of each; None: every row is one.

        Raises:
            ValueError: if there are none, or one has no unit.
        """
        if not count:
            raise ValueError("Expected at least one row of data.")
        if units is None:
            return cls(np.arange(count), np.arange(count))
        if len(units) != count:
            raise ValueError(f"Expected {len(units)=} to be the number of rows, {count}.")
        if any(unit is None or unit != unit for unit in units):
            raise ValueError("Expected every row to have its unit, and one is null.")
        return cls(*group(units))


class Examples(ABC):
    """A module with its losses and its data: what `MovedLosses` evaluates.

    Attributes:
        module: the module.
        shapes: of all micro-batches.
    """

    shapes: list[Shape]

    def __init__(self, module: nn.Module, losses: LossesOf) -> None:
        self.module = module
        self._losses = losses

    def losses(self, inputs: Inputs) -> Tensor:
        """(rows,) losses of a micro-batch."""
        rows = len(next(iter(inputs.values())))
        found = self._losses(self.module, inputs)
        if found.shape != (rows,):
            raise ValueError(
                f"Expected losses of shape {tuple(found.shape)} to be of shape ({rows},): one per "
                "example."
            )
        return found

    @abstractmethod
    def micro_batches(self, rows: np.ndarray) -> Iterator[MicroBatch]:
        """The given rows of the data in micro-batches filled up with a public example."""

    @abstractmethod
    def public_batches(self) -> list[MicroBatch]:
        """Public examples in micro-batches, to measure slopes on."""

    @abstractmethod
    def of_public(self, shape: Shape, numbers: Sequence[int]) -> Inputs:
        """A micro-batch of public examples by number, from 1 on; 0 is what fills empty rows."""

    @abstractmethod
    def separate(self, coupled: Sequence[Shape]) -> None:
        """Give micro-batches of these shapes, whose rows touch each other, one row.

        Raises:
            ProbeError: if that is not for the examples to decide.
        """

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What a ledger's header holds of the micro-batches."""


class Fitted(Examples):
    """Examples of one shape.

    Args:
        module: the module.
        losses: from the module and a micro-batch to (rows,) losses.
        data: the private examples, one tensor per name.
        public: examples of the same kind that say nothing of the private ones.
        order: the places of the data's rows, unit by unit.
        micro_batch: rows of every forward pass.

    Raises:
        ValueError: if data and public are not of the same kind.
    """

    def __init__(
        self,
        module: nn.Module,
        losses: LossesOf,
        data: Mapping[str, Tensor],
        public: Mapping[str, Tensor],
        order: np.ndarray,
        micro_batch: int,
    ) -> None:
        super().__init__(module, losses)
        if micro_batch < 1:
            raise ValueError(f"Expected {micro_batch=} to be at least 1.")
        if data.keys() != public.keys() or any(
            data[name].shape[1:] != public[name].shape[1:] or data[name].dtype != public[name].dtype
            for name in data
        ):
            raise ValueError("Expected data and public to have the same names, shapes and dtypes.")
        self.data = data
        self.public = public
        self.order = order
        self.micro_batch = micro_batch
        self.shapes = [Shape(micro_batch, length=1)]
        if self._public_rows < 2:
            raise ValueError("Expected at least two public examples.")

    def micro_batches(self, rows: np.ndarray) -> Iterator[MicroBatch]:
        return self._micro_batches(self.data, self.order[rows])

    def public_batches(self) -> list[MicroBatch]:
        return list(self._micro_batches(self.public, np.arange(self._public_rows)))

    def of_public(self, shape: Shape, numbers: Sequence[int]) -> Inputs:
        del shape
        others = self._public_rows - 1  # no number stands for the one that fills
        places = torch.tensor([1 + (number - 1) % others if number else 0 for number in numbers])
        return {name: tensor[places] for name, tensor in self.public.items()}

    def separate(self, coupled: Sequence[Shape]) -> None:
        raise ProbeError(
            f"losses: those of {coupled[0].rows} examples depend on each other bit by bit, in this "
            "module or on this machine; expected losses of each row alone (micro_batch=1 keeps "
            "examples apart where only matrix products are to blame)."
        )

    def described(self) -> dict[str, Any]:
        return {"micro_batch": self.micro_batch}

    @property
    def _public_rows(self) -> int:
        return min(map(len, self.public.values()))

    def _micro_batches(
        self, examples: Mapping[str, Tensor], chosen: np.ndarray
    ) -> Iterator[MicroBatch]:
        for start in range(0, len(chosen), self.micro_batch):
            taken = torch.from_numpy(chosen[start : start + self.micro_batch])
            filler = torch.zeros(self.micro_batch - len(taken), dtype=torch.long)
            inputs = {
                name: torch.cat([tensor[taken], self.public[name][filler]])
                for name, tensor in examples.items()
            }
            yield MicroBatch(np.arange(start, start + len(taken)), inputs)


def rows_in(data: Mapping[str, Tensor]) -> int:
    """Number of rows that all of these tensors have.

    Raises:
        ValueError: if they do not have the same number.
    """
    counts = {len(tensor) for tensor in data.values()}
    if len(counts) != 1:
        raise ValueError(f"Expected tensors of data with as many rows each, not {counts}.")
    return counts.pop()
