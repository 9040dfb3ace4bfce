"""What the boundary gets of private text in a round of first order: gradients, or own training.

An example's gradient comes from a forward and a backward pass over that example alone: no other
example is in the computation, so none can touch a bit of it. A client that is the unit of privacy
may put its examples together as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.federated.first_order.flat import Flat
from hushtune.federated.first_order.settings import CodedSettings
from hushtune.privacy.steps import Slopes
from hushtune.tasks.data import LabelledText
from hushtune.tasks.readouts import ReadOut, example_length

#: From an update, (d,) float64, and the charge to (K,) float64.
Encode = Callable[[np.ndarray, int], np.ndarray]


class ExampleGradients:
    """Gradients of the mean loss of some rows by the moving parameters.

    Args:
        readout: the model and how it is read.
        parameters: the moving parameters by name, float32.
        data: the text.
    """

    def __init__(
        self, readout: ReadOut, parameters: Mapping[str, nn.Parameter], data: LabelledText
    ) -> None:
        self._readout = readout.in_one_pass()
        self._parameters = list(parameters.values())
        self._examples = [readout.encode(text) for text in data.texts]
        self._labels = data.labels
        self.flat = Flat(parameters)

    def of(self, rows: Sequence[int]) -> list[Tensor]:
        """A tensor for each moving parameter; of one row, or of several together."""
        examples = [self._examples[row] for row in rows]
        length = max(example_length(example) for example in examples)
        inputs = self._readout.collate(examples, length)
        labels = torch.from_numpy(self._labels[np.asarray(rows)]).to(self._parameters[0].device)
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        try:
            with torch.enable_grad():
                loss = self._readout.losses(self._readout.scores(inputs), labels).mean()
                return list(torch.autograd.grad(loss, self._parameters))
        finally:
            for parameter in self._parameters:
                parameter.requires_grad_(False)

    def of_row(self, row: int) -> np.ndarray:
        """(d,) float64: the gradient of one row, which no other row was beside."""
        return self.flat.vector(self.of([row]))


class LocalTraining:
    """What a client's own steps of gradient descent change, from the parameters as they are.

    Args:
        gradients: of the client's text.
        learning_rate: η.
        batch: rows of a step.
    """

    def __init__(self, gradients: ExampleGradients, *, learning_rate: float, batch: int) -> None:
        self._gradients = gradients
        self._learning_rate = learning_rate
        self._batch = batch

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """(d,) float64: start less end of one pass over the rows; the parameters stay."""
        flat = self._gradients.flat
        start = flat.values()
        place = start.copy()
        try:
            for first in range(0, len(rows), self._batch):
                some = rows[first : first + self._batch]
                place -= self._learning_rate * flat.vector(self._gradients.of(some.tolist()))
                flat.put(place)
        finally:
            flat.put(start)
        return start - place


def contributions(
    gradients: ExampleGradients,
    data: LabelledText,
    settings: CodedSettings,
    encode: Encode,
    *,
    by_client: bool,
) -> Slopes:
    """What a round asks for: from sampled units to (rows, K) numbers and the unit of each row.

    Args:
        gradients: of the data's rows.
        data: the text.
        settings: of the run.
        encode: makes of an update what the boundary gets.
        by_client: whether the client is the unit of privacy, as the boundary takes it. There is one
            row then: its own training on all rows, in an order that it draws for itself.
    """

    def of_examples(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
        rows = data.rows_of(units)
        found = [encode(gradients.of_row(row), charge) for row in rows.tolist()]
        if not found:
            return encode(np.zeros(settings.dimension), charge)[None][:0], data.unit_of_row[rows]
        return np.stack(found), data.unit_of_row[rows]

    training = LocalTraining(
        gradients, learning_rate=settings.local_learning_rate, batch=settings.local_batch
    )

    def of_client(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.random.default_rng().permutation(data.rows_of(units))
        if not len(rows):
            # A code of nothing need not be zero; whoever has nothing adds nothing.
            return encode(np.zeros(settings.dimension), charge)[None][:0], rows
        return encode(training.of_rows(rows), charge)[None], np.zeros(1, dtype=np.int64)

    return of_client if by_client else of_examples
