"""Which of the moving parameters a gradient reaches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from hushtune.models.load import LoadedModel
from hushtune.tasks.batches import Shape


def reached(
    loaded: LoadedModel, parameters: Mapping[str, nn.Parameter], shape: Shape
) -> dict[str, nn.Parameter]:
    """The parameters that scores depend on; whether they require gradients stays as it was."""
    readout = loaded.readout
    before = {name: parameter.requires_grad for name, parameter in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        scores = readout.scores(readout.collate([readout.dummy], shape.length))
        found = torch.autograd.grad(scores.sum(), list(parameters.values()), allow_unused=True)
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(before[name])
    pairs = zip(parameters.items(), found, strict=True)
    return {name: each for (name, each), gradient in pairs if gradient is not None}
