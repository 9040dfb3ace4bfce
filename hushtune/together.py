"""Several directions in one forward pass, where passes are dear for what they compute.

A pass of a few short texts takes long for what it computes. Where only adapters move, the rows of
such a micro-batch can stand there once for every direction; see `hushtune.zo.slices`. How many
fill a pass is chosen before the first step, on public text, and recorded in the ledger.

Where weights are streamed, a pass takes as long as fetching them. Then there is no choice: all
moves of a step are in one pass, both signs of all directions or θ itself with one sign of each.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from hushtune.models.offload import streams
from hushtune.models.virtual import has_prompt
from hushtune.tasks.batches import Shape
from hushtune.tasks.task import TextTask
from hushtune.zo.estimators import Move
from hushtune.zo.losses import PROBE_CHARGE, Inputs, Together
from hushtune.zo.probe import Losses

#: Slopes of one and of several directions a pass should agree at least this well. They need not
#: be the same bits: larger matrix products may round differently.
_WANTED_AGREEMENT = 0.9


def moves_together(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], shapes: Sequence[Shape]
) -> Together:
    """How many moves a pass of each shape evaluates."""
    streamed = streams(model)
    sides = 2 if streamed else 1
    moves = {shape.length: sides * shape.directions for shape in shapes}
    moving = {id(parameter) for parameter in parameters.values()}
    frozen = [each for each in (*model.parameters(), *model.buffers()) if id(each) not in moving]

    def count(inputs: Inputs) -> int:
        return moves.get(inputs["input_ids"].shape[1], 1)

    return Together(count, frozen, streamed)


def few_move(model: nn.Module, parameters: Mapping[str, nn.Parameter], directions: int) -> bool:
    """Whether a copy of the moving parameters for every direction is less than the model.

    Never with DoRA: it makes vectors out of moving and frozen weights together, and where those are
    as long as a pass has rows nobody could tell which they are. Nor with prompts: PEFT makes the
    rows of a micro-batch out of them alone, which look like weights that all rows share.
    """
    if has_prompt(model) or any(".lora_magnitude_vector" in name for name in parameters):
        return False
    moving = sum(parameter.numel() for parameter in parameters.values())
    return moving * directions < sum(parameter.numel() for parameter in model.parameters())


def slices_of_passes(model: nn.Module, shape: Shape) -> set[int]:
    """How many moves, θ itself not counted, the passes that isolation is tried with evaluate.

    Where weights are streamed, θ goes along: one-sided passes have K + 1 slices, two-sided 2K.
    """
    if streams(model):
        return {shape.directions, 2 * shape.directions - 1}
    return {shape.directions}


def filled(shapes: Sequence[Shape], *, tokens: int, sequences: int, directions: int) -> list[Shape]:
    """The shapes with as many directions a pass as `tokens` tokens have room for.

    Args:
        tokens: tokens that a forward pass should have at most.
        sequences: sequences per example.
        directions: K, a multiple of the directions a pass.
    """

    def fitting(shape: Shape) -> int:
        most = max(1, tokens // (shape.rows * sequences * shape.length))
        return max(k for k in range(1, min(most, directions) + 1) if directions % k == 0)

    return [dataclasses.replace(shape, directions=fitting(shape)) for shape in shapes]


def pays(
    one: Losses,
    several: Losses,
    task: TextTask,
    shapes: Sequence[Shape],
    scale: float,
) -> bool:
    """Whether several directions a pass give the same slopes as one, in less time."""
    count = {shape.length: shape.directions for shape in shapes}
    seconds = np.zeros(2)
    slopes: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    tried: set[int] = set()
    for _, inputs in task.micro_batches(np.arange(task.rows)):
        length = inputs["input_ids"].shape[1]
        if count[length] == 1 or length in tried:
            continue
        tried.add(length)
        moves = [Move(k, scale) for k in range(count[length])]
        base = one.of_inputs(inputs, [Move(0, 0.0)], charge=PROBE_CHARGE)
        for which, losses in enumerate((one, several)):
            slopes[which].append(
                (losses.of_inputs(inputs, moves, charge=PROBE_CHARGE) - base).ravel()
            )
            seconds[which] += _seconds(losses, inputs, moves) / len(moves)
    if not tried:
        return False
    with np.errstate(invalid="ignore"):  # slopes that are all the same agree with nothing
        agreement = np.corrcoef(np.concatenate(slopes[0]), np.concatenate(slopes[1]))[0, 1]
    return bool(agreement >= _WANTED_AGREEMENT and seconds[1] < seconds[0])


def _seconds(losses: Losses, inputs: Inputs, moves: Sequence[Move]) -> float:
    """The shorter of two times: others may be using the machine."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        losses.of_inputs(inputs, moves, charge=PROBE_CHARGE)
        times.append(time.perf_counter() - start)
    return min(times)
