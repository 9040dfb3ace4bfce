"""A read-out with rows of text: what the optimiser needs to know of a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.models.encoder import label_scores
from hushtune.tasks.batches import Batcher, Shape
from hushtune.tasks.data import LabelledText
from hushtune.tasks.readouts import Example, ReadOut, example_length
from hushtune.zo.losses import Inputs, MicroBatch

#: Features of a frozen encoder by example.
FeatureStore = dict[Example, Tensor]


class TextTask:
    """A model, its text and its loss.

    Args:
        readout: how scores and losses come about.
        data: the rows.
        shapes: the run's micro-batch shapes.
        features: where only a head moves, the frozen encoder's features of texts seen before, in
            this task or another one of the same encoder; new ones are added.

    Attributes:
        texts: the rows' texts.
        labels: (rows,) positions of their labels; zeros where there are none.
        examples: the rows' token sequences.
    """

    #: Stands in `labels` for rows that fill a micro-batch up.
    _no_label = 0

    def __init__(
        self,
        readout: ReadOut,
        data: LabelledText,
        shapes: list[Shape],
        features: FeatureStore | None = None,
    ) -> None:
        self.readout = readout
        self._features = features
        self.texts: Sequence[Any] = data.texts
        self.labels: np.ndarray = data.labels
        self.examples: list[Example] = [readout.encode(text) for text in data.texts]
        self._batcher: Batcher[Example] = Batcher(
            self.examples, example_length, shapes, dummy=readout.dummy
        )

    @property
    def model(self) -> nn.Module:
        """The module whose parameters move."""
        return self.readout.model

    @property
    def rows(self) -> int:
        """Number of rows of the data."""
        return len(self.examples)

    @property
    def rows_cut(self) -> int:
        """Number of rows of which a part did not fit; public of public data alone."""
        return sum(any(sequence.cut for sequence in example) for example in self.examples)

    def micro_batches(self, rows: np.ndarray) -> Iterator[MicroBatch]:
        """The given rows in micro-batches; inputs hold their `labels`."""
        for places, examples, shape in self._batcher.batches(rows):
            inputs = self.readout.collate(examples, shape.length)
            labels = np.full(shape.rows, self._no_label, dtype=np.int64)
            labels[: len(places)] = self.labels[rows[places]]
            device = next(self.model.parameters()).device
            yield MicroBatch(places, {**inputs, "labels": torch.from_numpy(labels).to(device)})

    def losses(self, inputs: Inputs) -> Tensor:
        """(rows,) float64 losses."""
        return self.readout.losses(*self.scores(inputs))

    def features(self, inputs: Inputs) -> Tensor:
        """(rows, width) features of an `EncoderClassifier`'s frozen encoder."""
        classifier: Any = self.model
        return classifier.features(
            **{name: tensor for name, tensor in inputs.items() if name != "labels"}
        )

    def features_of(self, rows: np.ndarray) -> Tensor:
        """(rows, width) features of rows of the data; every text is encoded once."""
        store = {} if self._features is None else self._features
        missing = np.array([row for row in rows if self.examples[row] not in store], dtype=int)
        if len(missing):
            self._encode(missing, store)
        return torch.stack([store[self.examples[row]] for row in rows])

    def _encode(self, rows: np.ndarray, store: FeatureStore) -> None:
        classifier: Any = self.model
        vectors = classifier.label_vectors
        # One piece of memory: many small ones between what passes allocate and free would keep it
        # from being used again.
        found = torch.empty((len(rows), vectors.shape[1]), device=vectors.device)
        for places, inputs in self.micro_batches(rows):
            found[torch.from_numpy(places)] = self.features(inputs)[: len(places)]
        store.update(zip((self.examples[row] for row in rows), found, strict=True))

    def labels_of(self, rows: np.ndarray) -> Tensor:
        """(rows,) positions of the labels of rows of the data."""
        return torch.from_numpy(self.labels[rows]).to(next(self.model.parameters()).device)

    def head_losses(self, features: Tensor, labels: Tensor, head: Tensor) -> Tensor:
        """(moves, rows) float64 losses of (rows, width) features under (moves, labels, width)."""
        return self.readout.losses(label_scores(features, head), labels)

    def predictions(self) -> np.ndarray:
        """(rows,) int64 positions of the highest score of every row."""
        rows = np.arange(len(self.labels))
        best = np.empty(len(rows), dtype=np.int64)
        with torch.inference_mode():
            if self._features is not None and len(rows):
                classifier: Any = self.model
                scores = label_scores(self.features_of(rows), classifier.label_vectors)
                return scores.argmax(dim=-1).cpu().numpy()
            for places, inputs in self.micro_batches(rows):
                scores, _ = self.scores(inputs)
                best[places] = scores.argmax(dim=-1).cpu().numpy()[: len(places)]
        return best

    def scores(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(rows, labels) scores, and (rows,) positions of the right labels."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        return self.readout.scores(inputs), labels
