"""Per-example losses at many perturbed parameters: the forward passes of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.zo.directions import Directions
from hushtune.zo.estimators import Move
from hushtune.zo.kept import KeptOutputs, repeated
from hushtune.zo.perturbed import Perturbed, Scratch
from hushtune.zo.prefix import FrozenPrefix, Outputs
from hushtune.zo.slices import SlicedSubstitution, Stacks

Inputs = dict[str, Tensor]

#: A charge index that no run reaches: the probe's directions are never a step's directions.
PROBE_CHARGE = 2**62

#: Bytes of perturbed copies of small matrices that are kept while a step lasts.
_KEPT_COPIES = 1 << 25


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


class Together(NamedTuple):
    """What it takes to evaluate several moves in one forward pass; see `hushtune.zo.slices`.

    Attributes:
        count: from inputs to the number of moves that are evaluated together.
        frozen: the tensors of the model that do not move.
        streamed: whether passes are so dear that as few of them are made as can be. Then θ itself
            goes along with the other moves, as do those that are fewer than `count`.
    """

    count: Callable[[Inputs], int]
    frozen: Sequence[Tensor]
    streamed: bool = False


class MovedLosses:
    """Evaluates per-example losses at θ + c·z for a list of moves.

    Args:
        task: model, data and loss.
        parameters: the moving parameters by name.
        scales: a public factor per parameter; its direction is `scales[name] * z`.
        directions: the public directions.
        prefix: frozen layers whose output all moves share.
        together: how many moves a forward pass of these inputs evaluates; None: always one.

    Attributes:
        kept: outputs of the frozen layers that are known; none at first.
        scratch: what an operation sees of moving parameters.
    """

    def __init__(
        self,
        task: PerExampleLoss,
        parameters: dict[str, nn.Parameter],
        scales: dict[str, float],
        directions: Directions,
        prefix: FrozenPrefix,
        together: Together | None = None,
    ) -> None:
        self._task = task
        self._parameters = parameters
        self._scales = scales
        self._directions = directions
        self._prefix = prefix
        self._together = together
        self.kept: KeptOutputs = KeptOutputs(0)
        self.scratch: Scratch = Scratch()

    @property
    def frozen_layers(self) -> int:
        """Number of layers that no move changes the output of."""
        return self._prefix.depth

    def keep(self, rows: np.ndarray, limit: int) -> None:
        """Run the frozen layers for these rows now, so that `at` need not.

        All rows are kept for which `limit` bytes are enough.

        Raises:
            NotByExample: if what they return cannot be cut into examples.
        """
        self.kept = KeptOutputs(limit)
        with torch.inference_mode():
            for places, inputs in self._task.micro_batches(rows):
                self.kept.add(rows[places], *self.frozen_outputs(inputs))

    def frozen_outputs(self, inputs: Inputs) -> tuple[Outputs, int]:
        """What the last frozen layers return for a micro-batch, and its number of examples."""
        with torch.inference_mode():
            outputs = self._prefix.outputs(lambda: self._task.losses(inputs))
        return outputs, _examples(inputs)

    def at(self, rows: np.ndarray, moves: Sequence[Move], *, charge: int) -> np.ndarray:
        """(rows, moves) float64 losses."""
        losses = np.full((len(rows), len(moves)), np.nan)
        # Kept rows stand together, so that as few micro-batches as possible run the frozen layers.
        order = np.argsort(~self.kept.holds(rows), kind="stable")
        stacks = Stacks(_KEPT_COPIES)
        with torch.inference_mode():
            for places, inputs in self._task.micro_batches(rows[order]):
                places = order[places]
                outputs = self.kept.outputs(rows[places])
                values = self.of_inputs(
                    inputs, moves, charge=charge, outputs=outputs, stacks=stacks
                )
                losses[places] = values[: len(places)]
        return losses

    def of_inputs(
        self,
        inputs: Inputs,
        moves: Sequence[Move],
        *,
        charge: int,
        outputs: Outputs | None = None,
        stacks: Stacks | None = None,
    ) -> np.ndarray:
        """(rows of the micro-batch, moves) float64 losses, dummy rows included.

        Args:
            outputs: what the last frozen layers return for this micro-batch, where it is known.
            stacks: perturbed copies of this charge, made for other micro-batches; added to.
        """
        groups = self._groups(inputs, moves)
        alone = set(range(len(moves))).difference(*groups)
        columns: dict[int, Tensor] = {}
        with torch.inference_mode():
            with self._prefix.sharing(outputs) as shared:
                for place in sorted(alone):
                    columns[place] = self._moved(inputs, moves[place], charge)
            if groups and not all(shared):
                shared, _ = self.frozen_outputs(inputs)
            for places in groups:
                some = [moves[place] for place in places]
                values = self._sliced(inputs, some, charge, shared, stacks)
                columns |= zip(places, values, strict=True)
        values = torch.stack([columns[place] for place in range(len(moves))], dim=1)
        return values.double().cpu().numpy()

    def moves_in_a_pass(self, inputs: Inputs, moves: Sequence[Move]) -> int:
        """How many of these moves a forward pass evaluates, at most."""
        return max(map(len, self._groups(inputs, moves)), default=1)

    def _groups(self, inputs: Inputs, moves: Sequence[Move]) -> list[list[int]]:
        """Places of the moves that a pass evaluates together; those in none have one each."""
        if self._together is None:
            return []
        together, streamed = self._together.count(inputs), self._together.streamed
        some = [place for place, move in enumerate(moves) if streamed or move.scale != 0]
        groups = [some[start : start + together] for start in range(0, len(some), together)]
        least = 2 if streamed else max(2, together)
        return [places for places in groups if len(places) >= least]

    def _moved(self, inputs: Inputs, move: Move, charge: int) -> Tensor:
        if move.scale == 0:
            return self._task.losses(inputs)
        with self._perturbed(move, charge):
            return self._task.losses(inputs)

    def _sliced(
        self,
        inputs: Inputs,
        moves: Sequence[Move],
        charge: int,
        outputs: Outputs,
        stacks: Stacks | None,
    ) -> Tensor:
        """(moves, rows of the micro-batch) losses from one forward pass."""
        assert self._together is not None
        times, examples = len(moves), _examples(inputs)
        inputs = {name: torch.cat([tensor] * times) for name, tensor in inputs.items()}
        replace = [
            self._perturbed(move, charge).copy
            if move.scale
            else lambda _, parameter: parameter.detach()
            for move in moves
        ]
        mode = SlicedSubstitution(
            self._parameters,
            self._together.frozen,
            replace,
            times * examples,
            stacks,
            moves=tuple(moves),
        )
        with self._prefix.sharing(repeated(outputs, times, examples)), mode:
            return self._task.losses(inputs).view(times, examples)

    def _perturbed(self, move: Move, charge: int) -> Perturbed:
        return Perturbed(
            self._parameters,
            self._scales,
            self._directions,
            move,
            charge=charge,
            scratch=self.scratch,
        )


def _examples(inputs: Inputs) -> int:
    """In a micro-batch; each has one label and one or more sequences."""
    return min(map(len, inputs.values()))
