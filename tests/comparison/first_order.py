"""Runs of dp-sgd for tests, and its sum of clipped gradients without any of its code."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch

from hushtune.cli.arguments import parse_run
from hushtune.comparison import gradients
from hushtune.comparison.run import Comparison, prepare
from hushtune.tasks.data import LabelledText, read_labelled_text

FLAGS = ("--method.name", "dp-sgd", "--method.directions", "1")


def prepared(arguments: list[str], *flags: str) -> tuple[Comparison, LabelledText]:
    config, _ = parse_run("train", [*arguments, *flags])
    data = read_labelled_text(config.data.train, config.data, config.task, with_units=True)
    return prepare(config, units=data.units), data


def clipped_one_by_one(
    comparison: Comparison, data: LabelledText, rows: np.ndarray, clip_norm: float | None
) -> tuple[list[torch.Tensor], list[float]]:
    """Sum of clipped gradients, and all norms, from one backward pass an example."""
    moving = list(comparison.parameters.values())
    totals, norms = [torch.zeros_like(each) for each in moving], []
    task = comparison.task(data)
    for row in rows:
        ((_, inputs),) = task.micro_batches(np.array([row]))
        found = torch.autograd.grad(task.losses(inputs)[0], moving)
        norm = sum(float(each.double().square().sum()) for each in found) ** 0.5
        norms.append(norm)
        for total, each in zip(totals, found, strict=True):
            total += each * (1.0 if clip_norm is None else min(1.0, clip_norm / norm))
    return totals, norms


def require_own_clipped_gradients(
    comparison: Comparison, data: LabelledText, rows: np.ndarray
) -> None:
    """The sum over `rows` is that of the loop, with a clip that half of them feel."""
    _, norms = clipped_one_by_one(comparison, data, rows, None)
    clip_norm = float(np.median(norms))
    assert min(norms) < clip_norm < max(norms)
    expected, _ = clipped_one_by_one(comparison, data, rows, clip_norm)
    with ExitStack() as closing:
        source = comparison.gradients(data, closing)
        found = source.clipped_sum(rows, clip_norm)
        nothing = source.clipped_sum(rows[:0], clip_norm)
    wrong = gradients.norm_of([one - other for one, other in zip(found, expected, strict=True)])
    assert wrong < 1e-5 * gradients.norm_of(expected)
    assert all(not each.any() for each in nothing)
    assert [each.shape for each in nothing] == [each.shape for each in expected]
