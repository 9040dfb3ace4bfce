"""Whose text the attacks are after: a model, what moves in it, and the updates it sends."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from hushtune.federated.first_order.gradients import ExampleGradients
from hushtune.federated.leaks.atoms import View, views
from hushtune.tasks.data import LabelledText
from hushtune.tasks.readouts import ReadOut


class Victim:
    """A model with what moves in it, and the text it is trained on.

    Args:
        readout: the model and how it is read.
        parameters: those that move, by name.
        data: the private text.

    Attributes:
        readout, parameters, data: the same.
        flat: the moving parameters as one vector.
    """

    def __init__(
        self, readout: ReadOut, parameters: Mapping[str, nn.Parameter], data: LabelledText
    ) -> None:
        self.readout = readout
        self.parameters = parameters
        self.data = data
        self._gradients = ExampleGradients(readout, parameters, data)
        self.flat = self._gradients.flat

    def of(self, data: LabelledText) -> Victim:
        """The same model over other text."""
        return Victim(self.readout, self.parameters, data)

    def gradient(self, rows: np.ndarray) -> np.ndarray:
        """(d,) float64: of the mean loss of rows, as a client would send it unprotected."""
        return self.flat.vector(self._gradients.of(rows.tolist()))

    def updates(self, rows: np.ndarray) -> np.ndarray:
        """(n, d) float64: each row's own."""
        return np.stack([self.gradient(rows[[place]]) for place in range(len(rows))])

    def views(self, update: np.ndarray) -> list[View]:
        """What a (d,) update shows of the inputs of linear layers."""
        return views(self.flat.tensors(update), self.parameters)
