"""The update that a client would send unprotected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.federated.codecs import Layer
from hushtune.tasks.data import LabelledText
from hushtune.tasks.readouts import ReadOut, example_length


def layers_of(parameters: Mapping[str, nn.Parameter]) -> tuple[Layer, ...]:
    """Names and sizes, in the order in which an update holds them."""
    return tuple(Layer(name, each.numel()) for name, each in parameters.items())


def gradient_of_rows(
    readout: ReadOut,
    parameters: Mapping[str, nn.Parameter],
    data: LabelledText,
    rows: Sequence[int],
) -> np.ndarray:
    """(d,) float64: the gradient of the mean loss of rows, flat, in the order of the parameters.

    What federated averaging sends of one local step; of one row, what DP-SGD would clip.
    """
    examples = [readout.encode(data.texts[row]) for row in rows]
    inputs = readout.collate(examples, max(map(example_length, examples)))
    moving = list(parameters.values())
    labels = torch.from_numpy(data.labels[np.asarray(rows)]).to(moving[0].device)
    for parameter in moving:
        parameter.requires_grad_(True)
    with torch.enable_grad():
        loss = readout.losses(readout.scores(inputs), labels).mean()
        found = torch.autograd.grad(loss, moving)
    return np.concatenate([each.reshape(-1).double().cpu().numpy() for each in found])


def split(update: np.ndarray, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The tensors of a (d,) update by name, float64, in the parameters' shapes."""
    sizes = [each.numel() for each in parameters.values()]
    parts = torch.from_numpy(np.asarray(update, dtype=np.float64)).split(sizes)
    return {
        name: part.reshape(each.shape)
        for (name, each), part in zip(parameters.items(), parts, strict=True)
    }


def put(values: np.ndarray, parameters: Mapping[str, nn.Parameter]) -> None:
    """Set the parameters to (d,) values, each rounded once."""
    with torch.no_grad():
        for name, part in split(values, parameters).items():
            parameters[name].copy_(part)


def values_of(parameters: Mapping[str, nn.Parameter]) -> np.ndarray:
    """(d,) float64 of the parameters."""
    moving = [each.detach().reshape(-1).double().cpu().numpy() for each in parameters.values()]
    return np.concatenate(moving)
