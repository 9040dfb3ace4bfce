"""Sentence encoders: the inner product with a vector per label, first its encoded description."""

from __future__ import annotations

from torch import Tensor

from hushtune.models.encoder import EncoderClassifier
from hushtune.tasks.readouts.head import HeadReadOut
from hushtune.zo.losses import Inputs


class DescriptionsReadOut(HeadReadOut):
    """Scores of an `EncoderClassifier`."""

    model: EncoderClassifier

    def scores(self, inputs: Inputs) -> Tensor:
        return self.model(**inputs)
