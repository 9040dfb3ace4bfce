"""What can be learned on public dummy text before the first step, at no privacy cost.

- every moving parameter is read by the forward pass, or it is left out by name;
- one row's losses are the same bits whatever the other rows hold and wherever it stands;
- the frozen lower layers can be shared between directions, and their outputs kept;
- the typical slope ‖s‖ along a random direction, from which the default clip follows;
- seconds per forward pass.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from hushtune.zo.estimators import Estimator, Move, moves, slopes
from hushtune.zo.kept import KeptOutputs, NotByExample
from hushtune.zo.losses import PROBE_CHARGE, Inputs, MicroBatch, MovedLosses
from hushtune.zo.products import products_are_isolated

#: Slopes at λ and 2λ should agree at least this well, or a larger λ is tried.
_WANTED_AGREEMENT = 0.9


class LossesOfInputs(Protocol):
    """Evaluates per-example losses of a micro-batch at moved parameters."""

    def of_inputs(self, inputs: Inputs, moves: Sequence[Move], *, charge: int) -> np.ndarray:
        """(rows of the micro-batch, moves) losses, dummy rows included."""
        ...

    def moves_in_a_pass(self, inputs: Inputs, moves: Sequence[Move]) -> int:
        """How many of these moves a forward pass evaluates, at most."""
        ...


class Losses(LossesOfInputs, Protocol):
    """Evaluates per-example losses at moved parameters."""

    def at(self, rows: np.ndarray, moves: Sequence[Move], *, charge: int) -> np.ndarray:
        """(rows, moves) losses of rows of the data."""
        ...


class ProbeError(ValueError):
    """The model cannot be trained as configured; the message says why."""


@dataclass(frozen=True)
class Slopes:
    """Slopes along random directions on public text.

    Attributes:
        typical: median over examples of the root mean square slope along one direction.
        agreement: correlation between slopes at λ and at 2λ; near 1 where λ is large enough for
            the number format and small enough for the curvature. None where that means nothing.
        most: what a two-sided slope cannot exceed.
    """

    typical: float
    agreement: float | None
    most: float = math.inf


def is_isolated(
    losses: LossesOfInputs,
    collate: Callable[[Sequence[int]], Inputs],
    rows: int,
    scale: float,
    directions: int = 1,
    *,
    joined: bool = False,
) -> bool:
    """Whether a row's losses ignore what else is in the micro-batch, bit for bit.

    Args:
        collate: makes a micro-batch of the run's shape from `rows` numbers of dummy examples;
            the number 0 stands for an empty (dummy) row.
        rows: examples in a micro-batch.
        scale: λ.
        directions: as many as one forward pass evaluates.
        joined: whether θ itself is evaluated together with the directions.
    """
    some_moves = _some_moves(scale, directions)
    # A pass of θ alone meets the same operations as one of a direction: it is tried less often.
    first = 0 if joined else 1

    def evaluate(examples: Sequence[int], moves: Sequence[Move]) -> np.ndarray:
        return losses.of_inputs(collate(examples), moves, charge=PROBE_CHARGE)[:rows]

    examples = list(range(1, rows + 1))
    together = evaluate(examples, some_moves)
    if not np.array_equal(evaluate(examples[::-1], some_moves)[::-1], together):
        return False
    together = together[:, first:]
    for kept in _companies(rows):
        some = evaluate(np.where(kept, examples, 0).tolist(), some_moves[first:])
        if not np.array_equal(some[kept], together[kept]):
            return False
    # Even a row that is alone in its batch must not see what went through the model before it.
    if not np.array_equal(evaluate(examples, some_moves[first:]), together):
        return False
    inputs = collate(examples)
    # By how many moves a pass evaluates, so that products of the same shape are tried once.
    passes: dict[int, list[Move]] = {}
    for passed in (some_moves[:first], some_moves[first:]):
        if passed:
            passes.setdefault(losses.moves_in_a_pass(inputs, passed), []).extend(passed)
    return all(
        products_are_isolated(
            partial(losses.of_inputs, inputs, passed, charge=PROBE_CHARGE), rows=rows, times=times
        )
        for times, passed in passes.items()
    )


def _companies(rows: int) -> np.ndarray:
    """(cases, rows) bool, as few as can be: of any two rows each is in a case without the other.

    Every row is in half of the cases, and no two in the same ones (Sperner 1928).
    """
    cases = next(count for count in itertools.count(1) if math.comb(count, count // 2) >= rows)
    kept = np.zeros((cases, rows), dtype=bool)
    for row, own in zip(
        range(rows), itertools.combinations(range(cases), cases // 2), strict=False
    ):
        kept[list(own), row] = True
    return kept


def keeps_exactly(
    losses: MovedLosses,
    collate: Callable[[Sequence[int]], Inputs],
    rows: int,
    scale: float,
    directions: int = 1,
) -> bool:
    """Whether kept outputs of the frozen layers give the very losses that computing them gives.

    They are put together in another order, and with another number of dummies, than they were
    computed in. The arguments are those of `is_isolated`.
    """
    some_moves = _some_moves(scale, directions)
    kept = KeptOutputs(limit=sys.maxsize)
    numbers = list(range(1, rows + 1))
    try:
        kept.add(np.array(numbers), *losses.frozen_outputs(collate(numbers)))
    except NotByExample:
        return False
    for chosen in (numbers[::-1], numbers[rows // 2 :]):
        inputs = collate([*chosen, *[0] * (rows - len(chosen))])
        computed, restored = (
            losses.of_inputs(inputs, some_moves, charge=PROBE_CHARGE, outputs=outputs)
            for outputs in (None, kept.outputs(np.array(chosen)))
        )
        if not np.array_equal(computed[: len(chosen)], restored[: len(chosen)]):
            return False
    return True


def _some_moves(scale: float, directions: int) -> list[Move]:
    """A pass of one move, as the unmoved parameters have, and a pass of several."""
    return [Move(0, 0.0), *(Move(k, scale) for k in range(directions))]


def choose_scale(
    losses: Losses, batches: Sequence[MicroBatch], candidates: Sequence[float], *, directions: int
) -> tuple[float, Slopes]:
    """The first λ whose slopes agree with those at 2λ, or the best; with its slopes.

    Args:
        batches: public examples.
        candidates: λ, by ascending size.
        directions: random directions to look along.

    Raises:
        ProbeError: as `measure_slopes`.
    """
    seen: list[tuple[float, Slopes]] = []
    for scale in candidates:
        seen.append((scale, measure_slopes(losses, batches, scale, directions)))
        if (seen[-1][1].agreement or 0.0) >= _WANTED_AGREEMENT:
            break
    return max(seen, key=lambda pair: pair[1].agreement or 0.0)


def measure_slopes(
    losses: Losses, batches: Sequence[MicroBatch], scale: float, directions: int
) -> Slopes:
    """Slopes of dummy examples along so many random directions.

    Raises:
        ProbeError: if a loss is not finite or does not depend on the moving parameters.
    """
    estimator: Estimator = "two-sided"

    near_moves = moves(estimator, directions, scale)
    far_moves = moves(estimator, directions, 2 * scale)
    values = np.concatenate(
        [
            losses.of_inputs(inputs, near_moves + far_moves, charge=PROBE_CHARGE)[: len(places)]
            for places, inputs in batches
        ]
    )
    near = slopes(estimator, values[:, : len(near_moves)], scale)
    far = slopes(estimator, values[:, len(near_moves) :], 2 * scale)
    if not np.isfinite(near).all():
        raise ProbeError("model.name: its loss on plain public text is not finite.")
    typical = float(np.median(np.sqrt((near**2).mean(axis=1))))
    if typical == 0:
        raise ProbeError("model.tune: the loss does not depend on the parameters that move.")
    agreement = float(np.corrcoef(near.ravel(), far.ravel())[0, 1])
    return Slopes(typical, agreement)


def seconds_per_pass(losses: Losses, inputs: Inputs, passes: Sequence[Move]) -> float:
    """Seconds for one micro-batch with all its moves, the second of two times."""
    for _ in range(2):
        start = time.perf_counter()
        losses.of_inputs(inputs, passes, charge=PROBE_CHARGE)
        elapsed = time.perf_counter() - start
    return elapsed
