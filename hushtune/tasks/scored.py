"""A task whose losses are scores of its answers; see `hushtune.tasks.objectives`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hushtune.models.encoder import label_scores
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import LabelledText
from hushtune.tasks.objectives import Objective
from hushtune.tasks.readouts import ReadOut
from hushtune.tasks.task import FeatureStore, TextTask
from hushtune.zo.losses import Inputs


class ScoredTask(TextTask):
    """What the optimiser sees in place of a `TextTask`.

    Written answers are greedy, and each is written alone: in a batch, what a row says would depend
    on how others were padded.
    """

    def __init__(
        self,
        readout: ReadOut,
        data: LabelledText,
        shapes: list[Shape],
        objective: Objective,
        features: FeatureStore | None = None,
    ) -> None:
        super().__init__(readout, data, shapes, features)
        self._objective = objective
        if objective.writes:
            # So that the inputs of a micro-batch tell which rows they are of.
            self.labels: np.ndarray = np.arange(self.rows)
            self._no_label = -1

    def losses(self, inputs: Inputs) -> Tensor:
        if not self._objective.writes:
            return self._objective.losses(*self.scores(inputs))
        rows = inputs["labels"]
        values = [0.0 if row < 0 else self._loss_of_row(row) for row in rows.tolist()]
        return torch.tensor(values, dtype=torch.float64, device=rows.device)

    def head_losses(self, features: Tensor, labels: Tensor, head: Tensor) -> Tensor:
        return self._objective.losses(label_scores(features, head), labels)

    def _loss_of_row(self, row: int) -> float:
        readout: Any = self.readout
        text: Any = self.texts[row]
        [answer] = readout.complete([text.prompt])
        return self._objective.loss(answer, text.accepted)
