"""Sums of clipped per-example gradients where only label vectors move; what every such sum needs.

An example's gradient by the label vectors is that of a small function of its features, which torch
differentiates example by example. Anything else is in `hushtune.comparison.ghost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hushtune.tasks.task import TextTask

#: Examples whose gradients by the label vectors are held at a time.
_BLOCK_ROWS = 256


class GradientSums(Protocol):
    """What DP-SGD asks of a model with its private text."""

    def clipped_sum(self, rows: np.ndarray, clip_norm: float) -> list[Tensor]:
        """One tensor per moving parameter; of no rows, zeros."""
        ...


class HeadGradients:
    """Gradients by the label vectors on top of a frozen encoder; every text is encoded once."""

    def __init__(self, task: TextTask, head: nn.Parameter) -> None:
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
                total += sum_of_clipped(gradients, clip_norm)
        return [total]


def sum_of_clipped(gradients: Tensor, clip_norm: float) -> Tensor:
    """Sum over examples of (examples, …) gradients, each example's scaled to norm ≤ `clip_norm`.

    An example whose gradient is not finite counts as zero.
    """
    norms = torch.linalg.vector_norm(gradients.flatten(1), dim=1, dtype=torch.float64)
    factors = clip_factors(norms, clip_norm).to(gradients.dtype)
    return torch.einsum("n,n...->...", factors, gradients.nan_to_num(0.0, 0.0, 0.0))


def clip_factors(norms: Tensor, clip_norm: float) -> Tensor:
    """(examples,) factors that scale gradients of these norms to norm ≤ `clip_norm`; 0 for NaN."""
    return torch.where(norms.isfinite(), (clip_norm / norms).clamp(max=1.0), 0.0)


def norm_of(tensors: Sequence[Tensor]) -> float:
    """L2 norm of all entries together."""
    return float(sum(each.double().square().sum() for each in tensors)) ** 0.5
