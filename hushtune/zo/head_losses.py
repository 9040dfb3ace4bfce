"""Losses where only a head on top of fixed features moves.

The features of a text do not change while only the head moves, so each text goes through the
frozen encoder once in a whole run, whatever the number of steps and directions. Scoring all
directions of a block of rows is one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.zo.directions import Directions
from hushtune.zo.estimators import Move
from hushtune.zo.losses import PROBE_CHARGE, Inputs

#: Rows of a block; fixed, so that a row's numbers do not depend on how many rows there are.
BLOCK_ROWS = 64

#: Upper bound on the directions that one matrix product evaluates, for the sake of memory.
_BLOCK_MOVES = 128


class HeadTask(Protocol):
    """A task whose model is a frozen encoder with a movable matrix on top."""

    def features(self, inputs: Inputs) -> Tensor:
        """(rows, width) features of a micro-batch, whose inputs hold `labels` as well."""
        ...

    def features_of(self, rows: np.ndarray) -> Tensor:
        """(rows, width) features of rows of the data; every text is encoded once."""
        ...

    def labels_of(self, rows: np.ndarray) -> Tensor:
        """(rows,) labels of rows of the data."""
        ...

    def head_losses(self, features: Tensor, labels: Tensor, head: Tensor) -> Tensor:
        """(moves, rows) losses under (moves, …) heads."""
        ...


class HeadLosses:
    """Evaluates per-example losses at moved heads.

    Args:
        task: model, data and loss.
        name: the head's name among the moving parameters.
        head: the head, the only moving parameter.
        scale: public factor of the head's directions.
        directions: the public directions.
    """

    def __init__(
        self, task: HeadTask, name: str, head: nn.Parameter, scale: float, directions: Directions
    ) -> None:
        self._task = task
        self._name = name
        self._head = head
        self._scale = scale
        self._directions = directions

    def encode(self, rows: np.ndarray) -> None:
        """Compute the features of these rows now."""
        with torch.inference_mode():
            self._task.features_of(rows)

    def at(self, rows: np.ndarray, moves: Sequence[Move], *, charge: int) -> np.ndarray:
        """(rows, moves) float64 losses."""
        if len(rows) == 0:
            return np.empty((0, len(moves)))
        with torch.inference_mode():
            features, labels = self._task.features_of(rows), self._task.labels_of(rows)
            return self._losses(features, labels, moves, charge)

    def of_inputs(self, inputs: Inputs, moves: Sequence[Move], *, charge: int) -> np.ndarray:
        """(rows of the micro-batch, moves) float64 losses, dummy rows included."""
        with torch.inference_mode():
            return self._losses(self._task.features(inputs), inputs["labels"], moves, charge)

    def moves_in_a_pass(self, inputs: Inputs, moves: Sequence[Move]) -> int:
        """One: a text goes through the encoder once, whatever moves."""
        del inputs, moves
        return 1

    def block_is_isolated(self, moves: Sequence[Move], labels: int) -> bool:
        """Whether a row of a block has the same losses in any place and any company.

        Tried on made-up features, with the very moves of a step.
        """
        generator = torch.Generator().manual_seed(0)
        features = torch.randn((BLOCK_ROWS, self._head.shape[-1]), generator=generator)
        features = torch.nn.functional.normalize(features, dim=-1).to(self._head.device)
        targets = (torch.arange(BLOCK_ROWS) % labels).to(self._head.device)

        def evaluate(order: Tensor) -> np.ndarray:
            return self._losses(features[order], targets[order], moves, PROBE_CHARGE)

        with torch.inference_mode():
            together = evaluate(torch.arange(BLOCK_ROWS))
            turned = [
                np.array_equal(np.roll(evaluate(torch.arange(BLOCK_ROWS).roll(k)), -k, 0), together)
                for k in (1, 7, BLOCK_ROWS // 2)
            ]
            alone = [
                np.array_equal(evaluate(torch.tensor([row]))[0], together[row])
                for row in range(0, BLOCK_ROWS, 5)
            ]
        return all(turned) and all(alone)

    def _losses(
        self, features: Tensor, labels: Tensor, moves: Sequence[Move], charge: int
    ) -> np.ndarray:
        losses = np.empty((len(features), len(moves)))
        for first in range(0, len(moves), _BLOCK_MOVES):
            heads = torch.stack(
                [self._moved(move, charge) for move in moves[first : first + _BLOCK_MOVES]]
            )
            for start in range(0, len(features), BLOCK_ROWS):
                block = slice(start, start + BLOCK_ROWS)
                real = len(features[block])
                some = _padded(features[block]).double()
                values = self._task.head_losses(some, _padded(labels[block]), heads)
                losses[block, first : first + len(heads)] = values.T[:real].cpu().numpy()
        return losses

    def _moved(self, move: Move, charge: int) -> Tensor:
        head = self._head.detach().double()
        if move.scale == 0:
            return head
        return self._directions.perturbed(
            self._name,
            head,
            charge=charge,
            direction=move.direction,
            scale=move.scale * self._scale,
        )


def _padded(rows: Tensor) -> Tensor:
    """`BLOCK_ROWS` rows, the missing ones zero."""
    missing = BLOCK_ROWS - len(rows)
    return torch.cat([rows, rows.new_zeros((missing, *rows.shape[1:]))])
