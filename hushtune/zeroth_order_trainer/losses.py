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

#: Losses of the same logits may differ by so much for rounding alone, in 16 bits by more.
_TOLERANCE = 1e-4
_COARSE = 3e-2

#: Losses of a row in other company, in 16 bits: its logits are rounded in another way too.
_COARSE_IN_COMPANY = 5e-2


def tokens(outputs: Any, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a row's labels, each at its own position."""
    return _mean(*_placed(outputs, labels))


def shifted_tokens(outputs: Any, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a row's labels, each at the position before its own."""
    logits, labels = _placed(outputs, labels)
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
    candidates = [
        RowLosses(function, decodes=decodes)
        for function in (shifted_tokens, tokens, label, squared_error, several_labels)
        if _fits(function, examples[0])
    ]
    telling = [each for inputs in examples for each in (inputs, *_with_one_label(inputs))]
    deviations = [
        max(_deviation(model, losses, inputs) for inputs in telling) for losses in candidates
    ]
    if min(deviations, default=math.inf) <= _tolerance(model, _COARSE):
        return candidates[deviations.index(min(deviations))]
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
    tolerance = _tolerance(model, _COARSE_IN_COMPANY)
    if not torch.allclose(found.double(), expected.double(), rtol=tolerance, atol=tolerance):
        raise ConfigError(
            "compute_loss_func: the losses of several rows are not those of each row alone; it "
            "must return one loss per row, a function of that row."
        )


def require_padding_ignored(
    model: nn.Module, losses: RowLosses, padded: Sequence[Inputs], alone: Sequence[Inputs]
) -> None:
    """Refuse a model that reads the padding behind a row.

    Args:
        padded, alone: the same public rows, with columns of padding and without.

    Raises:
        ConfigError: saying what may be wrong.
    """
    with torch.inference_mode():
        found, expected = (
            torch.cat([losses(model, inputs) for inputs in rows]).double()
            for rows in (padded, alone)
        )
    tolerance = _tolerance(model, _COARSE_IN_COMPANY)
    if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance):
        raise ConfigError(
            "model: its loss of a row changes with the padding behind the row; expected a model "
            "that takes an attention_mask, and a head that finds the last token "
            "(config.pad_token_id) also behind virtual tokens."
        )


def without_labels(model: Any, inputs: Inputs, *, decodes: bool) -> tuple[Inputs, Tensor | None]:
    """What the model is called with, and labels, which it would only reduce to a mean."""
    inputs = dict(inputs)
    labels = inputs.pop("labels", None)
    if decodes and labels is not None and "decoder_input_ids" not in inputs:
        made = base_of(model).prepare_decoder_input_ids_from_labels(labels=labels)
        inputs["decoder_input_ids"] = made
    return inputs, labels


def reads_and_writes(model: Any) -> bool:
    """Whether an encoder and a decoder have texts of their own."""
    return bool(getattr(base_of(model).config, "is_encoder_decoder", False))


def base_of(model: Any) -> Any:
    """The model of transformers, without what PEFT wraps around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _placed(outputs: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and labels at their positions: virtual tokens stand in front of the text."""
    logits = outputs["logits"]
    missing = logits.shape[1] - labels.shape[1]
    return logits, functional.pad(labels, (missing, 0), value=IGNORED)


def _mean(logits: Tensor, labels: Tensor) -> Tensor:
    each = token_log_likelihoods(logits, labels)
    return -each.double().sum(dim=1) / (labels >= 0).sum(dim=1).clamp(min=1)


def _fits(function: LossFunction, inputs: Inputs) -> bool:
    """Whether a loss is one of labels like these."""
    labels = inputs["labels"]
    if labels.is_floating_point():
        return function in (squared_error, several_labels)
    return function in ((shifted_tokens, tokens) if labels.dim() > 1 else (label,))


def _with_one_label(inputs: Inputs) -> list[Inputs]:
    """A row of many labels with one of them each time, the last one and one in the middle.

    A mean over many is much the same wherever labels stand; the loss of one of them is not.
    """
    labels = inputs["labels"]
    if labels.is_floating_point() or labels.dim() != 2:
        return []
    places = (labels[0, 1:] >= 0).nonzero().flatten() + 1  # the first has no position before it
    made = []
    for place in {len(places) // 2, len(places) - 1} if len(places) else ():
        one = torch.full_like(labels, IGNORED)
        one[0, places[place]] = labels[0, places[place]]
        made.append({**inputs, "labels": one})
    return made


def _deviation(model: Any, losses: RowLosses, inputs: Inputs) -> float:
    """How far a row's loss is from the model's own, relatively; ∞ where it is a loss of others."""
    with torch.inference_mode():
        own = model(**inputs)
        if not isinstance(own, Mapping) or own.get("loss") is None or "logits" not in own:
            return math.inf
        if own["logits"].shape[0] != 1 or own["loss"].numel() != 1:
            return math.inf
        try:
            found = losses(model, inputs)
        except (
            RuntimeError,
            ValueError,
            IndexError,
        ):  # logits of another shape than this loss is of
            return math.inf
    if found.shape != (1,):
        return math.inf
    expected = float(own["loss"])
    deviation = abs(float(found) - expected) / max(abs(expected), 1.0)
    return deviation if math.isfinite(deviation) else math.inf


def _tolerance(model: nn.Module, coarse: float) -> float:
    exact = (torch.float32, torch.float64)
    return _TOLERANCE if all(each.dtype in exact for each in model.parameters()) else coarse
