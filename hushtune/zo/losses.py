"""Per-example losses at many perturbed parameters: the forward passes of a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.zo.directions import Directions
from hushtune.zo.estimators import Move
from hushtune.zo.prefix import FrozenPrefix
from hushtune.zo.substitution import Substitution

Inputs = dict[str, Tensor]

#: A charge index that no run reaches: the probe's directions are never a step's directions.
PROBE_CHARGE = 2**62


class MicroBatch(NamedTuple):
    """A forward pass's worth of examples, in one of a few fixed shapes.

    Attributes:
        places: where in the list of rows that was asked for each real row belongs.
        inputs: tensors whose rows after the real ones are dummies.
    """

    places: np.ndarray
    inputs: Inputs


class PerExampleLoss(Protocol):
    """A model, its data and its loss, as the optimiser sees them."""

    def micro_batches(self, rows: np.ndarray) -> Iterable[MicroBatch]:
        """The given rows of the data in micro-batches; every row in exactly one."""
        ...

    def losses(self, inputs: Inputs) -> Tensor:
        """One loss per row of the micro-batch, each a function of its own row alone."""
        ...


class MovedLosses:
    """Evaluates per-example losses at θ + c·z for a list of moves.

    Args:
        task: model, data and loss.
        parameters: the moving parameters by name.
        scales: a public factor per parameter; its direction is `scales[name] * z`.
        directions: the public directions.
        prefix: frozen layers whose output all moves share.
    """

    def __init__(
        self,
        task: PerExampleLoss,
        parameters: dict[str, nn.Parameter],
        scales: dict[str, float],
        directions: Directions,
        prefix: FrozenPrefix,
    ) -> None:
        self._task = task
        self._parameters = parameters
        self._scales = scales
        self._directions = directions
        self._prefix = prefix

    def at(self, rows: np.ndarray, moves: Sequence[Move], *, charge: int) -> np.ndarray:
        """(rows, moves) float64 losses."""
        losses = np.full((len(rows), len(moves)), np.nan)
        with torch.inference_mode():
            for places, inputs in self._task.micro_batches(rows):
                losses[places] = self.of_inputs(inputs, moves, charge=charge)[: len(places)]
        return losses

    def of_inputs(self, inputs: Inputs, moves: Sequence[Move], *, charge: int) -> np.ndarray:
        """(rows of the micro-batch, moves) float64 losses, dummy rows included."""
        with torch.inference_mode(), self._prefix.sharing():
            columns = [self._moved(inputs, move, charge) for move in moves]
        return torch.stack(columns, dim=1).double().cpu().numpy()

    def _moved(self, inputs: Inputs, move: Move, charge: int) -> Tensor:
        if move.scale == 0:
            return self._task.losses(inputs)

        def perturbed(name: str, parameter: Tensor) -> Tensor:
            return self._directions.perturbed(
                name,
                parameter,
                charge=charge,
                direction=move.direction,
                scale=move.scale * self._scales[name],
            )

        with Substitution(self._parameters, perturbed):
            return self._task.losses(inputs)
