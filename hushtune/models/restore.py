"""Use a tuned model: load it from its run folder and classify texts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from hushtune.config import LoraConfig, from_values
from hushtune.models.load import load_model
from hushtune.models.moving import cast_adapters
from hushtune.models.save import LABEL_VECTORS_FILE
from hushtune.privacy.ledger import LedgerError
from hushtune.tasks.batches import Shape
from hushtune.tasks.classification import ClassificationTask
from hushtune.tasks.data import LabelledText
from hushtune.tasks.readouts import ReadOut


class TunedClassifier:
    """A tuned model with its labels.

    Example:
        >>> hushtune.load("runs/demo").predict(["My card has been stolen."])
        ['card_lost']
    """

    def __init__(self, readout: ReadOut, labels: Sequence[str], shapes: list[Shape]) -> None:
        self._readout = readout
        self._shapes = shapes
        self.labels = tuple(labels)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The best label of each text."""
        data = LabelledText(list(texts), np.zeros(len(texts), np.int64), np.arange(len(texts)))
        best = ClassificationTask(self._readout, data, self._shapes).predictions()
        return [self.labels[index] for index in best]

    def accuracy(self, data: LabelledText) -> float:
        """Share of rows whose label is predicted."""
        return ClassificationTask(self._readout, data, self._shapes).accuracy()


def load_tuned(run: str | Path, header: dict[str, Any]) -> TunedClassifier:
    """The tuned model of a run folder, by the ledger's header.

    A folder with `model/` is complete; one with `adapter/` needs the base model as well.
    """
    run = Path(run)
    config = from_values(header["config"], source=f"{run}/ledger.jsonl")
    adapter, model = run / "adapter", run / "model"
    if not adapter.exists() and not model.exists():
        raise LedgerError(f"{run}: this run is not complete; repeat its `hushtune train` command.")
    if not adapter.exists():
        config = dataclasses.replace(
            config, model=dataclasses.replace(config.model, name=str(model))
        )
    loaded = load_model(
        config.model, config.task, max_length=config.data.max_length, seed=config.seed
    )
    readout: Any = loaded.readout
    lora = config.model.lora
    if adapter.exists():
        if loaded.kind == "descriptions":
            readout.model.encoder = _with_adapter(readout.model.encoder, adapter, lora)
        else:
            readout.model = _with_adapter(readout.model, adapter, lora)
    if loaded.kind == "descriptions":
        folder = adapter if adapter.exists() else model
        with safe_open(str(folder / LABEL_VECTORS_FILE), framework="pt") as file, torch.no_grad():
            vectors: Any = readout.model.label_vectors
            vectors.copy_(file.get_tensor("label_vectors"))
    shapes = [Shape(**shape) for shape in header["shapes"]]
    return TunedClassifier(readout, list(config.task.labels), shapes)


def _with_adapter(network: nn.Module, adapter: Path, lora: LoraConfig) -> nn.Module:
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks transformers for names of older versions
        adapted = peft.PeftModel.from_pretrained(network, str(adapter))  # type: ignore[arg-type]
    cast_adapters(adapted, lora)
    return adapted.eval()
