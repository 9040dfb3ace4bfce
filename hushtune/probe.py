"""Try a model on public dummy text before the first step; see `hushtune.zo.probe`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from hushtune.models.load import LoadedModel
from hushtune.models.offload import streams
from hushtune.tasks.batches import Shape, one_row_each, shapes_of_few
from hushtune.tasks.data import LabelledText
from hushtune.tasks.dummy_text import dummy_texts
from hushtune.tasks.readouts import Example, ReadOut, example_length
from hushtune.tasks.task import TextTask
from hushtune.together import few_move, filled, moves_together, pays, slices_of_passes
from hushtune.zo.directions import Directions
from hushtune.zo.estimators import Move, moves
from hushtune.zo.head_losses import HeadLosses
from hushtune.zo.losses import Inputs, MovedLosses
from hushtune.zo.prefix import FrozenPrefix, find_frozen_prefix
from hushtune.zo.probe import ProbeError, Slopes, choose_scale, is_isolated, keeps_exactly
from hushtune.zo.substitution import parameters_reached

#: The only parameter that moves when an encoder's head is tuned.
LABEL_VECTORS = "label_vectors"

#: Rows of dummy text, about; each text stands there with several labels in turn.
_DUMMY_ROWS = 48


@dataclass
class Probe:
    """What was found.

    Attributes:
        parameters: the moving parameters that the loss reads.
        left_out: names of those that it does not read.
        shapes: micro-batch shapes; one row each where more rows were seen to couple.
        prefix: the frozen layers that all directions share.
        losses: evaluates losses of dummy text.
        task: the dummy text.
        perturbation_scale: λ.
        slopes: typical slope at λ.
    """

    parameters: dict[str, nn.Parameter]
    left_out: list[str]
    shapes: list[Shape]
    prefix: FrozenPrefix
    losses: HeadLosses | MovedLosses
    task: TextTask
    perturbation_scale: float
    slopes: Slopes


def run_probe(
    loaded: LoadedModel,
    parameters: dict[str, nn.Parameter],
    scales: dict[str, float],
    shapes: list[Shape],
    *,
    distribution: str,
    seed: int,
    directions_a_step: int,
    tokens: int,
    perturbation_scale: float | None,
    isolation: bool,
) -> Probe:
    """Look at the model on dummy text.

    Args:
        directions_a_step: K.
        tokens: tokens that a forward pass should have at most.
        perturbation_scale: λ, or None to choose it.
        isolation: whether to try that examples do not touch each other.

    Raises:
        ProbeError: if the loss is not finite or does not depend on the moving parameters.
    """
    readout = loaded.readout
    shortest = example_length(readout.dummy)
    shapes = [shape for shape in shapes if shape.length >= shortest]  # no text fits the others
    streamed = streams(loaded.model)
    if streamed:
        shapes = [replace(shape, directions=directions_a_step) for shape in shapes]
    dummies = dummy_data(loaded)
    task = TextTask(loaded.readout, dummies, shapes)
    some = dict(next(iter(task.micro_batches(np.arange(dummies.units)))).inputs)
    with torch.inference_mode():
        if not torch.isfinite(task.losses(some)).all():
            raise ProbeError(
                "model.name: its loss on plain public text is not finite; expected finite weights, "
                "and a model.dtype with enough range for them."
            )
    reached = parameters_reached(parameters, lambda: task.losses(some))
    if not reached:
        raise ProbeError("model.tune: the loss does not depend on the parameters that move.")
    moving = {name: parameter for name, parameter in parameters.items() if name in reached}
    left_out = [name for name in parameters if name not in reached]

    prefix = find_frozen_prefix(task.model, moving, lambda: task.losses(some))
    directions = make_directions(seed, moving, distribution)

    def make(task: TextTask, shapes: list[Shape]) -> HeadLosses | MovedLosses:
        return make_losses(task, moving, scales, directions, prefix, shapes)

    losses = make(task, shapes)
    candidates = (
        [perturbation_scale] if perturbation_scale else candidate_scales(loaded.model, moving)
    )
    if isolation:
        coupled = coupled_shapes(losses, loaded.readout, shapes, candidates[0], directions_a_step)
        alone = one_row_each(coupled, coupled)
        if coupled_shapes(losses, loaded.readout, alone, candidates[0], directions_a_step):
            raise ProbeError(
                "model.name: the loss of a text on its own changes from one forward pass to the "
                "next; expected a model without memory and without chance."
            )
        shapes = one_row_each(shapes, coupled)
    task = TextTask(loaded.readout, dummies, shapes)
    losses = make(task, shapes)
    small = shapes_of_few(shapes, loaded.readout.sequences)
    few = TextTask(loaded.readout, dummies, small)
    scale, slopes = choose_scale(
        make(few, small),
        list(few.micro_batches(np.arange(few.rows))),
        candidates,
        # A median over few directions is biased low; a head's directions are free.
        directions=64 if isinstance(losses, HeadLosses) else 8,
    )
    several = filled(
        shapes, tokens=tokens, sequences=loaded.readout.sequences, directions=directions_a_step
    )
    adapters = isinstance(losses, MovedLosses) and few_move(loaded.model, moving, directions_a_step)
    if adapters and not streamed and several != shapes:
        joint = make(task, several)
        if isolation:
            coupled = coupled_shapes(joint, loaded.readout, several, scale, directions_a_step)
            several = [replace(each, directions=1) if each in coupled else each for each in several]
            joint = make(task, several)
        if pays(losses, joint, task, several, scale):
            shapes, losses = several, joint
    return Probe(moving, left_out, shapes, prefix, losses, task, scale, slopes)


def make_directions(
    seed: int, parameters: dict[str, nn.Parameter], distribution: str
) -> Directions:
    """The public directions of these parameters."""
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    return Directions(seed, shapes, distribution)


def make_losses(
    task: TextTask,
    parameters: dict[str, nn.Parameter],
    scales: dict[str, float],
    directions: Directions,
    prefix: FrozenPrefix,
    shapes: Sequence[Shape],
) -> HeadLosses | MovedLosses:
    """The cheapest sound way to evaluate losses at moved parameters in micro-batches like these."""
    if set(parameters) == {LABEL_VECTORS}:
        head = parameters[LABEL_VECTORS]
        return HeadLosses(task, LABEL_VECTORS, head, scales[LABEL_VECTORS], directions)
    return MovedLosses(
        task, parameters, scales, directions, prefix, moves_together(task.model, parameters, shapes)
    )


class _Scores:
    """A read-out's scores where losses at moved parameters are expected."""

    def __init__(self, readout: ReadOut) -> None:
        self._readout = readout

    def of_inputs(self, inputs: Inputs, moves: Sequence[Move], *, charge: int) -> np.ndarray:
        """(rows of the micro-batch, labels) scores of the model as it is."""
        del moves, charge
        texts = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        with torch.inference_mode():
            return self._readout.scores(texts).double().cpu().numpy()

    def moves_in_a_pass(self, inputs: Inputs, moves: Sequence[Move]) -> int:
        """One: nothing moves."""
        del inputs, moves
        return 1


def isolated_shapes(readout: ReadOut, shapes: Sequence[Shape]) -> list[Shape]:
    """The shapes, one row each where a row's scores depend on the others, on this machine.

    Raises:
        ProbeError: if the scores of a text on its own change from one pass to the next.
    """
    scores = _Scores(readout)

    def isolated(shape: Shape) -> bool:
        collate = _collated(readout, shape)
        return is_isolated(scores, collate, shape.rows, scale=0.0, joined=True)

    coupled = [shape for shape in shapes if not isolated(shape)]
    if not all(isolated(shape) for shape in one_row_each(coupled, coupled)):
        raise ProbeError(
            "the scores of a text on its own change from one forward pass to the next; expected a "
            "model without memory and without chance."
        )
    return one_row_each(shapes, coupled)


def dummy_data(loaded: LoadedModel) -> LabelledText:
    """Public texts, each with every label in turn (with eight of them where there are many)."""
    labels = np.unique(np.linspace(0, loaded.readout.labels - 1, 8).round().astype(np.int64))
    count = max(8, _DUMMY_ROWS // len(labels))
    texts = [loaded.readout.text_of(text) for text in dummy_texts(count) for _ in labels]
    return LabelledText(texts, np.tile(labels, count), np.arange(len(texts)))


def candidate_scales(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[float]:
    """λ to try: 1e-3 as in the literature; larger where small moves drown in 16-bit activations."""
    activations = next(model.parameters()).dtype
    adapters = len(parameters) < len(list(model.parameters())) / 2
    if activations != torch.float32 and adapters:
        return [1e-2, 3e-2]
    return [1e-3, 3e-3, 1e-2]


def coupled_shapes(
    losses: HeadLosses | MovedLosses,
    readout: ReadOut,
    shapes: Sequence[Shape],
    scale: float,
    directions: int,
) -> list[Shape]:
    """Those micro-batch shapes at which one row's losses depend on the others, on this machine.

    Raises:
        ProbeError: if the matrix products of a head couple rows, which no shape can mend.
    """
    if isinstance(losses, HeadLosses):
        for estimator in ("two-sided", "one-sided"):
            if not losses.block_is_isolated(moves(estimator, directions, scale), readout.labels):
                raise ProbeError(
                    "model.tune: on this machine a row's product with the head depends on the "
                    "other rows of a block, so that head alone cannot be tuned privately."
                )
    # All moves of a head are one product.
    joined = streams(readout.model) or isinstance(losses, HeadLosses)
    return [
        shape
        for shape in shapes
        if not all(
            is_isolated(losses, _collated(readout, shape), shape.rows, scale, moved, joined=joined)
            for moved in slices_of_passes(readout.model, shape)
        )
    ]


def can_keep(losses: MovedLosses, readout: ReadOut, shapes: Sequence[Shape], scale: float) -> bool:
    """Whether kept outputs of the frozen layers change no bit of any shape's losses."""
    return losses.frozen_layers > 0 and all(
        keeps_exactly(losses, _collated(readout, shape), shape.rows, scale, shape.directions)
        for shape in shapes
    )


def _collated(readout: ReadOut, shape: Shape) -> Callable[[Sequence[int]], Inputs]:
    """Makes a micro-batch of numbers of dummy texts; 0 stands for an empty row."""
    # Numbered, so that all rows differ.
    texts = [f"{index} {text}" for index, text in enumerate(dummy_texts(shape.rows))]
    encoded = [_fitting(readout, text, shape.length) for text in texts]

    def collate(numbers: Sequence[int]) -> Inputs:
        examples = [encoded[number - 1] if number else readout.dummy for number in numbers]
        labels = torch.tensor([number % readout.labels for number in numbers])
        inputs = readout.collate(examples, shape.length)
        device = next(iter(inputs.values())).device
        return {**inputs, "labels": labels.to(device)}

    return collate


def _fitting(readout: ReadOut, text: str, length: int) -> Example:
    """The beginning of the text that fits into so many tokens."""
    words = text.split()
    while words:
        example = readout.encode(readout.text_of(" ".join(words)))
        if example_length(example) <= length:
            return example
        words = words[: len(words) * 3 // 4]
    return readout.dummy
