"""Losses of a tiny model at moved parameters, for tests of how they are evaluated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hushtune.config import VIRTUAL, DataConfig, LoraConfig, ModelConfig, TaskConfig
from hushtune.models.load import LoadedModel, load_model
from hushtune.models.moving import add_adapters, moving_parameters
from hushtune.models.prompts import add_virtual_tokens
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import LabelledText
from hushtune.tasks.task import TextTask
from hushtune.together import moves_together
from hushtune.zo.directions import Directions
from hushtune.zo.losses import MovedLosses
from hushtune.zo.prefix import FrozenPrefix, find_frozen_prefix


@dataclass
class Setting:
    """A model with text: the frozen layers that it has, and the task."""

    loaded: LoadedModel
    parameters: dict[str, nn.Parameter]
    task: TextTask
    prefix: FrozenPrefix

    def losses(
        self, prefix: FrozenPrefix | None = None, shapes: Sequence[Shape] = ()
    ) -> MovedLosses:
        """With the model's own frozen layers or others; `shapes` say how many directions a pass."""
        directions = {name: parameter.shape for name, parameter in self.parameters.items()}
        return MovedLosses(
            self.task,
            self.parameters,
            dict.fromkeys(self.parameters, 1.0),
            Directions(0, directions, "rademacher"),
            self.prefix if prefix is None else prefix,
            moves_together(self.task.model, self.parameters, shapes) if shapes else None,
        )


def make_setting(
    model: ModelConfig,
    tune: Sequence[str],
    texts: Sequence[str],
    shapes: list[Shape],
    words: Sequence[str],
    **task: str,
) -> Setting:
    """Two classes that the texts belong to in turn, or another kind of task.

    Args:
        tune: what moves, and the names of layers that get adapters.
    """
    labels = dict(zip(("negative", "positive"), words, strict=True))
    settings = TaskConfig(labels={} if "kind" in task else labels, **task)  # type: ignore[arg-type]
    data = DataConfig(max_length=32, max_completion_length=8)
    loaded = load_model(model, settings, data, seed=0)
    if tune[0] == "lora":
        add_adapters(loaded, "lora", LoraConfig(r=2, target_modules=tuple(tune[1:])), seed=0)
    if tune[0] in VIRTUAL:
        add_virtual_tokens(loaded, dataclasses.replace(model, tune=tune[0]), seed=0)
    parameters = moving_parameters(loaded, tune[0])
    with torch.no_grad():
        for name, parameter in parameters.items():
            if ".lora_B." in name or ".lora_embedding_A." in name:  # zero at first
                parameter.add_(0.1)
    rows = np.arange(len(texts))
    read = [loaded.readout.text_of(text) for text in texts]
    of_texts = TextTask(loaded.readout, LabelledText(read, rows % 2, rows), shapes)
    some = next(iter(of_texts.micro_batches(rows))).inputs
    prefix = find_frozen_prefix(of_texts.model, parameters, lambda: of_texts.losses(dict(some)))
    return Setting(loaded, parameters, of_texts, prefix)
