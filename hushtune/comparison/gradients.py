"""Sums of clipped per-example gradients, in micro-batches.

Where only label vectors move, an example's gradient is that of a small function of its features,
which torch differentiates example by example. Anything else goes through Opacus, whose hooks keep
the gradient of every example of a micro-batch in `parameter.grad_sample`.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.config import ConfigError
from hushtune.models.encoder import LOGIT_SCALE, EncoderClassifier, embed
from hushtune.tasks.batches import Shape
from hushtune.tasks.classification import ClassificationTask
from hushtune.tasks.data import LabelledText
from hushtune.tasks.dummy_text import dummy_texts
from hushtune.tasks.readouts import ReadOut, example_length
from hushtune.zo.losses import Inputs

#: Examples whose gradients by the label vectors are held at a time.
_BLOCK_ROWS = 256

#: Bytes of per-example gradients of a micro-batch, unless a single example has more.
_MICRO_BATCH_BYTES = 2**27

#: An example's gradient in company must agree with its gradient alone to this share of its norm.
_TOLERANCE = 1e-3

#: Public texts on which that is tried.
_CHECKED_TEXTS = 3


class GradientSums(Protocol):
    """What DP-SGD asks of a model with its private text."""

    def clipped_sum(self, rows: np.ndarray, clip_norm: float) -> list[Tensor]:
        """One tensor per moving parameter; of no rows, zeros."""
        ...


class HeadGradients:
    """Gradients by the label vectors on top of a frozen encoder; every text is encoded once."""

    def __init__(self, task: ClassificationTask, head: nn.Parameter) -> None:
        self._task = task
        self._head = head
        with torch.no_grad():
            task.features_of(np.arange(task.rows))

    def clipped_sum(self, rows: np.ndarray, clip_norm: float) -> list[Tensor]:
        def loss(head: Tensor, features: Tensor, label: Tensor) -> Tensor:
            return self._task.head_losses(features[None], label[None], head)[0]

        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
        total = torch.zeros_like(self._head)
        with torch.no_grad():
            for start in range(0, len(rows), _BLOCK_ROWS):
                block = rows[start : start + _BLOCK_ROWS]
                features = self._task.features_of(block)
                gradients = each(self._head.detach(), features, self._task.labels_of(block))
                total += sum_of_clipped([gradients], clip_norm)[0]
        return [total]


class OpacusGradients:
    """Gradients of any model by the hooks of Opacus, removed by `close`.

    Args:
        readout: the model and how it is read; the moving parameters require gradients.
        parameters: the moving parameters by name.
        shapes: micro-batch shapes.
        data: the private text.

    Raises:
        ConfigError: if Opacus is not installed, or its per-example gradients of public text are
            not the gradients of these examples alone.
    """

    def __init__(
        self,
        readout: ReadOut,
        parameters: dict[str, nn.Parameter],
        shapes: list[Shape],
        data: LabelledText,
    ) -> None:
        hooks = _opacus()
        self._parameters = list(parameters.values())
        self._names = list(parameters)
        size = sum(each.numel() * each.element_size() for each in self._parameters)
        most = max(1, _MICRO_BATCH_BYTES // size)
        self._shapes = [Shape(min(most, shape.rows), shape.length) for shape in shapes]
        self._readout = copy.copy(readout)
        if isinstance(readout.model, EncoderClassifier):
            self._readout.model = _LinearHead(readout.model)
        alone = self._gradients_alone()
        for module in self._readout.model.modules():
            # Opacus looks at layers in training mode alone; dropout has no parameters and so
            # stays off.
            module.training = any(p.requires_grad for p in module.parameters(recurse=False))
        self._hooks = hooks(self._readout.model, loss_reduction="sum", strict=False)
        self._require_these_in_company(alone)
        self._task = ClassificationTask(self._readout, data, self._shapes)

    def close(self) -> None:
        """Leave the model as it was."""
        self._hooks.remove_hooks()
        self._readout.model.eval()
        for parameter in self._parameters:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]

    def clipped_sum(self, rows: np.ndarray, clip_norm: float) -> list[Tensor]:
        totals = [torch.zeros_like(parameter) for parameter in self._parameters]
        for places, inputs in self._task.micro_batches(rows):
            gradients = [each[: len(places)] for each in self._gradients(self._task, inputs)]
            for total, some in zip(totals, sum_of_clipped(gradients, clip_norm), strict=True):
                total += some
        return totals

    def _gradients(self, task: ClassificationTask, inputs: Inputs) -> list[Tensor]:
        """(rows, …) gradients per moving parameter."""
        rows = len(inputs["labels"])
        for parameter in self._parameters:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            # torch notes that hooks fire on layers whose inputs need no gradient.
            warnings.simplefilter("ignore")
            task.losses(inputs).sum().backward()
        return [
            _per_example(name, parameter, rows)
            for name, parameter in zip(self._names, self._parameters, strict=True)
        ]

    def _gradients_alone(self) -> list[list[Tensor]]:
        """Per public text, its gradient without Opacus."""
        task = self._dummies(rows=1)
        return [
            list(torch.autograd.grad(task.losses(inputs).sum(), self._parameters))
            for _, inputs in task.micro_batches(np.arange(task.rows))
        ]

    def _require_these_in_company(self, alone: list[list[Tensor]]) -> None:
        task = self._dummies(rows=len(alone))
        (batch,) = task.micro_batches(np.arange(task.rows))
        together = self._gradients(task, batch.inputs)
        for row, expected in enumerate(alone):
            wrong = norm_of([each[row] - one for each, one in zip(together, expected, strict=True)])
            if not wrong <= _TOLERANCE * norm_of(expected):
                raise ConfigError(
                    "model.name: Opacus does not find each example's own gradient in this model; "
                    "compare with another model.tune, or with an encoder."
                )

    def _dummies(self, *, rows: int) -> ClassificationTask:
        """Public texts in micro-batches of `rows` rows."""
        texts = dummy_texts(_CHECKED_TEXTS)
        places = np.arange(_CHECKED_TEXTS)
        data = LabelledText(texts, places % self._readout.labels, places)
        longest = max(example_length(self._readout.encode(text)) for text in texts)
        return ClassificationTask(self._readout, data, [Shape(rows, longest)])


def sum_of_clipped(gradients: Sequence[Tensor], clip_norm: float) -> list[Tensor]:
    """Sums over examples of (examples, …) gradients, each example's scaled to norm ≤ `clip_norm`.

    An example whose gradient is not finite counts as zero.
    """
    if not len(gradients[0]):
        return [each.sum(dim=0) for each in gradients]
    parts = [
        torch.linalg.vector_norm(each.flatten(1), dim=1, dtype=torch.float64) for each in gradients
    ]
    norms = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    finite = norms.isfinite()
    factors = torch.where(finite, (clip_norm / norms).clamp(max=1.0), 0.0)
    return [
        torch.einsum("n,n...->...", factors.to(each.dtype), each.nan_to_num(0.0, 0.0, 0.0))
        for each in gradients
    ]


def norm_of(tensors: Sequence[Tensor]) -> float:
    """L2 norm of all entries together."""
    return float(sum(each.double().square().sum() for each in tensors)) ** 0.5


class _LinearHead(nn.Module):
    """An `EncoderClassifier` with its label vectors as weight of a linear layer, for Opacus."""

    def __init__(self, classifier: EncoderClassifier) -> None:
        super().__init__()
        self.encoder = classifier.encoder
        self._pooling = classifier.pooling
        labels, width = classifier.label_vectors.shape
        self.head = nn.Linear(width, labels, bias=False, device="meta")
        self.head.weight = classifier.label_vectors

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(rows, labels) scores."""
        return LOGIT_SCALE * self.head(
            embed(self.encoder, self._pooling, input_ids, attention_mask)
        )


def _opacus() -> Any:
    """The class that puts hooks on a model."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("opacus.grad_sample").GradSampleHooks
    except ImportError:
        raise ConfigError(
            "method.name: dp-sgd needs the package opacus to tune more than label vectors: "
            "pip install hushtune[comparison]"
        ) from None


def _per_example(name: str, parameter: nn.Parameter, rows: int) -> Tensor:
    """(rows, …) gradients; the sequences of an example, which stand together, are added up."""
    found = getattr(parameter, "grad_sample", None)
    if not isinstance(found, Tensor) or len(found) % rows:
        raise ConfigError(
            f"model.tune: Opacus finds no per-example gradient for {name}, which all examples read "
            "at once; compare with another model.tune, such as lora."
        )
    return found.view(rows, -1, *parameter.shape).sum(dim=1)
