"""Sums of clipped per-example gradients of any model, by ghost clipping (Li et al., 2022).

A first backward pass finds the norm of every example's gradient without making the gradient; a
second one goes through the losses times the clip's factors, and gives their sum. Both are exact up
to rounding. What Opacus finds on public text is compared with gradients of one text at a time
before the first step, and a model where they differ is refused.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.comparison.gradients import clip_factors, norm_of
from hushtune.config import ConfigError
from hushtune.models.encoder import LOGIT_SCALE, EncoderClassifier, embed
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import LabelledText
from hushtune.tasks.dummy_text import dummy_texts
from hushtune.tasks.readouts import ReadOut, example_length
from hushtune.tasks.task import TextTask
from hushtune.zo.losses import Inputs

#: Bytes of per-example gradients of one parameter, unless a single example has more.
_MICRO_BATCH_BYTES = 2**27

#: The norm of a parameter's gradient in company must agree with that alone to the first share, or
#: to the second one of all parameters' gradients' norm: some gradients are nothing but rounding.
_IN_32_BIT = (1e-3, 1e-5)
_IN_16_BIT = (5e-2, 1e-3)

#: Public texts on which that is tried.
_CHECKED_TEXTS = 3

#: Standard deviation of what is added to parameters while that is tried.
_ELSEWHERE = 0.02


class GhostGradients:
    """Gradients of any model by ghost clipping; `close` removes its hooks.

    Several sequences of an example, as where each label is scored by its own, are one unit: the
    norm is that of the sum over them. An example whose gradient is not finite counts as zero, and
    so does a row that only fills a micro-batch.

    Args:
        readout: the model and how it is read; the moving parameters require gradients.
        parameters: the moving parameters by name.
        shapes: micro-batch shapes.
        data: the private text.

    Raises:
        ConfigError: if Opacus is not installed, or what it finds for public texts are not the
            norms of their own gradients.
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
        self._readout = readout.in_one_pass()
        if isinstance(readout.model, EncoderClassifier):
            self._readout.model = _LinearHead(readout.model)
        with _elsewhere(self._parameters):
            alone = self._norms_alone()
            for module in self._readout.model.modules():
                # Opacus looks at layers in training mode alone; dropout has no parameters and so
                # stays off.
                module.training = any(p.requires_grad for p in module.parameters(recurse=False))
            try:
                self._hooks = hooks(self._readout.model)
                found = self._norms_in_company()
            except Exception as error:
                raise _Refused(type(error).__name__) from None
        sixteen = any(each.element_size() < 4 for each in self._parameters)
        if not _agree(found, alone, _IN_16_BIT if sixteen else _IN_32_BIT):
            raise _Refused("their norms are others")
        held = [each.numel() * 4 for each in self._hooks.with_gradients()]
        most = max(1, _MICRO_BATCH_BYTES // max(held, default=1))
        shapes = [Shape(min(most, shape.rows), shape.length) for shape in shapes]
        self._task = TextTask(self._readout, data, shapes)

    def close(self) -> None:
        """Leave the model as it was."""
        self._hooks.cleanup()
        self._readout.model.eval()

    def clipped_sum(self, rows: np.ndarray, clip_norm: float) -> list[Tensor]:
        totals = [torch.zeros_like(parameter) for parameter in self._parameters]
        for places, inputs in self._task.micro_batches(rows):
            losses, parts = self._losses_and_norms(self._task, inputs)
            norms = torch.linalg.vector_norm(parts, dim=0)
            factors = clip_factors(norms, clip_norm)
            factors[len(places) :] = 0.0
            finite = norms.isfinite()
            if not finite.all():
                # In a backward pass zero times infinity would reach the sum.
                if not finite.any():
                    continue
                losses = self._task.losses(_in_place_of_others(inputs, finite))
            sums = self._backward((losses * factors).sum())
            for total, some in zip(totals, sums, strict=True):
                total += some
        return totals

    def _losses_and_norms(self, task: TextTask, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(rows,) losses, with their graph; (parameters, rows) float64 norms of their gradients."""
        hooks = self._hooks
        hooks.examples, hooks.sequences = len(inputs["labels"]), len(inputs["input_ids"])
        hooks.forget()
        hooks.enable_hooks()
        losses = task.losses(inputs)
        hooks.forward_is_done()
        self._backward(losses.sum(), retain_graph=True)
        hooks.disable_hooks()
        norms = [parameter._norm_sample for parameter in self._parameters]  # type: ignore[attr-defined]
        hooks.forget()
        return losses, torch.stack([each.to(losses.device) for each in norms]).double()

    def _backward(self, value: Tensor, *, retain_graph: bool = False) -> tuple[Tensor, ...]:
        """Gradients by the moving parameters."""
        with warnings.catch_warnings():
            # torch notes that hooks fire on layers whose inputs need no gradient.
            warnings.simplefilter("ignore")
            return torch.autograd.grad(value, self._parameters, retain_graph=retain_graph)

    def _norms_alone(self) -> Tensor:
        """(parameters, texts) norms of public texts' gradients, without Opacus."""
        task = self._dummies(rows=1)
        found = [
            [norm_of([each]) for each in self._backward(task.losses(inputs).sum())]
            for _, inputs in task.micro_batches(np.arange(task.rows))
        ]
        return torch.tensor(found, dtype=torch.float64).T

    def _norms_in_company(self) -> Tensor:
        """(parameters, texts) norms of the same gradients as Opacus finds them."""
        task = self._dummies(rows=_CHECKED_TEXTS)
        (batch,) = task.micro_batches(np.arange(task.rows))
        return self._losses_and_norms(task, batch.inputs)[1].cpu()

    def _dummies(self, *, rows: int) -> TextTask:
        """Public texts in micro-batches of `rows` rows."""
        texts = [self._readout.text_of(text) for text in dummy_texts(_CHECKED_TEXTS)]
        places = np.arange(_CHECKED_TEXTS)
        data = LabelledText(texts, places % self._readout.labels, places)
        longest = max(example_length(self._readout.encode(text)) for text in texts)
        return TextTask(self._readout, data, [Shape(rows, longest)])


class _Refused(ConfigError):
    def __init__(self, reason: str) -> None:
        super().__init__(
            f"model.name: Opacus does not find each example's own gradient in this model ({reason})"
            "; compare with another model.tune, such as lora, or with an encoder."
        )


class _LinearHead(nn.Module):
    """An `EncoderClassifier` with its label vectors as weight of a linear layer, for Opacus."""

    def __init__(self, classifier: EncoderClassifier) -> None:
        super().__init__()
        self.encoder = classifier.encoder
        self._pooling = classifier.pooling
        labels, width = classifier.label_vectors.shape
        self.head = nn.Linear(width, labels, bias=False, device="meta")
        self.head.weight = classifier.label_vectors

    def forward(self, **inputs: Tensor) -> Tensor:
        """(rows, labels) scores."""
        return LOGIT_SCALE * self.head(embed(self.encoder, self._pooling, **inputs))


def _opacus() -> Any:
    """The class that puts hooks on a model."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("hushtune.comparison.hooks").GhostHooks
    except ImportError:
        raise ConfigError(
            "method.name: dp-sgd needs the package opacus to tune more than label vectors: "
            "pip install hushtune[comparison]"
        ) from None


@contextmanager
def _elsewhere(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Moves the parameters for a while; adapters begin where half of their gradient is zero."""
    kept = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(_ELSEWHERE * noise.to(parameter))
        yield
    finally:
        with torch.no_grad():
            for parameter, before in zip(parameters, kept, strict=True):
                parameter.copy_(before)


def _agree(found: Tensor, alone: Tensor, shares: tuple[float, float]) -> bool:
    """Whether (parameters, texts) norms are the same but for rounding."""
    own, whole = shares
    rounding = whole * torch.linalg.vector_norm(alone, dim=0)
    return bool((found - alone).abs().le(own * alone + rounding).all())


def _in_place_of_others(inputs: Inputs, finite: Tensor) -> Inputs:
    """The first of the `finite` examples wherever another one is not."""
    rows = torch.arange(len(finite), device=finite.device)
    rows = torch.where(finite, rows, rows[finite][0])
    return {
        name: tensor.unflatten(0, (len(rows), -1))[rows].flatten(0, 1)
        for name, tensor in inputs.items()
    }
