"""Features of a frozen encoder: each text once, the same bits, in one piece of memory."""

from __future__ import annotations

import numpy as np
import torch

from hushtune.config import DataConfig, ModelConfig, TaskConfig
from hushtune.models.load import load_model
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import LabelledText
from hushtune.tasks.task import FeatureStore, TextTask

TEXTS = ["good", "a bad film", "good", "it was not so bad and the food was very very good", "food"]


def test_features_are_computed_once_and_stand_together(encoder_folder, monkeypatch):
    loaded = load_model(
        ModelConfig(name=encoder_folder),
        TaskConfig(labels={"negative": "bad", "positive": "good"}),
        DataConfig(max_length=32),
        seed=0,
    )
    rows = np.arange(len(TEXTS))
    data = LabelledText(TEXTS, rows % 2, rows)
    store: FeatureStore = {}
    task = TextTask(loaded.readout, data, [Shape(2, 8), Shape(2, 32)], store)
    with torch.inference_mode():
        expected = torch.empty(len(TEXTS), loaded.model.label_vectors.shape[1])
        for places, inputs in task.micro_batches(rows):
            expected[torch.from_numpy(places)] = task.features(inputs)[: len(places)]
        assert torch.equal(task.features_of(rows), expected)
        # Small pieces between what passes allocate and free would keep that from being used again.
        assert len({each.untyped_storage().data_ptr() for each in store.values()}) == 1
        assert len(store) == len(set(TEXTS))

        def never(*_: object) -> None:
            raise AssertionError("encoded once more")

        monkeypatch.setattr(TextTask, "features", never)
        assert torch.equal(task.features_of(rows[::-1].copy()), expected.flip(0))
