"""One loss per row, as the model itself would compute it for that row alone.

Models return the mean over a batch. Which of the usual losses that is follows from trying, on
public examples one at a time; a model that computes none of them needs a `compute_loss_func`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hushtune.config import ConfigError
from hushtune.tasks.readouts.classifying import cross_entropy
from hushtune.tasks.readouts.likelihood import token_log_likelihoods
from hushtune.zeroth_order_trainer.form import IGNORED
from hushtune.zo.losses import Inputs

#: A model's outputs and labels to (rows,) losses.
LossFunction = Callable[[Any, Any], Tensor]

#: Losses of the same row may differ by so much for rounding alone, in 16 bits by more.
_TOLERANCE = 1e-4
_COARSE = 5e-2


def tokens(outputs: Any, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a row's labels, each at its own position."""
    logits = outputs["logits"]
    # Virtual tokens stand in front of the text.
    labels = functional.pad(labels, (logits.shape[1] - labels.shape[1], 0), value=IGNORED)
    return _mean(logits, labels)


def shifted_tokens(outputs: Any, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a row's labels, each at the position before its own."""
    logits = outputs["logits"]
    labels = functional.pad(labels, (logits.shape[1] - labels.shape[1], 0), value=IGNORED)
    return _mean(logits[:, :-1], labels[:, 1:])


def label(outputs: Any, labels: Tensor) -> Tensor:
    """Cross-entropy of a row's label."""
    return cross_entropy(outputs["logits"], labels)


def squared_error(outputs: Any, labels: Tensor) -> Tensor:
    """Mean squared error of a row's numbers."""
    logits = outputs["logits"].double()
    return (logits.reshape(len(labels), -1) - labels.reshape(len(labels), -1)).square().mean(dim=1)


def several_labels(outputs: Any, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy of all labels."""
    each = functional.binary_cross_entropy_with_logits(
        outputs["logits"].double(), labels.double(), reduction="none"
    )
    return each.mean(dim=1)


class RowLosses:
    """From a model and a micro-batch to one loss for each row.

    Args:
        function: of outputs and labels.
        decodes: whether decoder inputs are to be made of the labels.
    """

    def __init__(self, function: LossFunction, *, decodes: bool) -> None:
        self.function = function
        self._decodes = decodes

    def __call__(self, model: nn.Module, inputs: Inputs) -> Tensor:
        inputs, labels = without_labels(model, inputs, decodes=self._decodes)
        return self.function(model(**inputs), labels)


def find_losses(model: nn.Module, examples: Sequence[Inputs], *, decodes: bool) -> RowLosses:
    """The usual loss that is the model's own.

    Args:
        examples: micro-batches of one public row.

    Raises:
        ConfigError: if it is none of them.
    """
    if "labels" not in examples[0]:
        raise ConfigError(
            "train_dataset: its rows have no labels; expected a column labels or label, a collator "
            "that makes labels, or a compute_loss_func."
        )
    for function in (shifted_tokens, tokens, label, squared_error, several_labels):
        losses = RowLosses(function, decodes=decodes)
        if _fits(function, examples[0]) and all(
            _agrees(model, losses, inputs) for inputs in examples
        ):
            return losses
    raise ConfigError(
        f"model: the loss of {type(model).__name__} is none that can be computed row by row; give "
        "a compute_loss_func(outputs, labels) that returns one loss per row."
    )


def require_separable(
    model: nn.Module, losses: RowLosses, together: Inputs, alone: Sequence[Inputs]
) -> None:
    """Refuse losses of several rows that are not, but for rounding, those of each row alone.

    Raises:
        ConfigError: naming `compute_loss_func`.
    """
    with torch.inference_mode():
        found = losses(model, together)
        rows = len(alone)
        if not isinstance(found, Tensor) or found.shape != (rows,):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError(
                f"compute_loss_func: returned {shape} for {rows} rows; it must return one loss "
                f"per row, of shape ({rows},)."
            )
        expected = torch.cat([losses(model, dict(inputs)) for inputs in alone])
    tolerance = _tolerance(model)
    if not torch.allclose(found.double(), expected.double(), rtol=tolerance, atol=tolerance):
        raise ConfigError(
            "compute_loss_func: the losses of several rows are not those of each row alone; it "
            "must return one loss per row, a function of that row."
        )


def without_labels(model: Any, inputs: Inputs, *, decodes: bool) -> tuple[Inputs, Tensor | None]:
    """What the model is called with, and labels, which it would only reduce to a mean."""
    inputs = dict(inputs)
    labels = inputs.pop("labels", None)
    if decodes and labels is not None and "decoder_input_ids" not in inputs:
        made = base_of(model).prepare_decoder_input_ids_from_labels(labels=labels)
        inputs["decoder_input_ids"] = made
    return inputs, labels


def base_of(model: Any) -> Any:
    """The model of transformers, without what PEFT wraps around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _mean(logits: Tensor, labels: Tensor) -> Tensor:
    each = token_log_likelihoods(logits, labels)
    return -each.double().sum(dim=1) / (labels >= 0).sum(dim=1).clamp(min=1)


def _fits(function: LossFunction, inputs: Inputs) -> bool:
    """Whether a loss is one of labels like these."""
    labels = inputs["labels"]
    if labels.is_floating_point():
        return function in (squared_error, several_labels)
    return function in ((shifted_tokens, tokens) if labels.dim() > 1 else (label,))


def _agrees(model: Any, losses: RowLosses, inputs: Inputs) -> bool:
    tolerance = _tolerance(model)
    with torch.inference_mode():
        own = model(**inputs)
        if not isinstance(own, Mapping) or own.get("loss") is None or "logits" not in own:
            return False
        if own["logits"].shape[0] != 1 or own["loss"].numel() != 1:
            return False
        try:
            found = losses(model, inputs)
        except (RuntimeError, IndexError):  # logits of another shape than this loss is of
            return False
    return found.shape == (1,) and math.isclose(
        float(own["loss"]), float(found), rel_tol=tolerance, abs_tol=tolerance
    )


def _tolerance(model: nn.Module) -> float:
    exact = (torch.float32, torch.float64)
    return _TOLERANCE if all(each.dtype in exact for each in model.parameters()) else _COARSE
