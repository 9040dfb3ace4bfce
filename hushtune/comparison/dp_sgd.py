"""The steps of DP-SGD: sample, sum clipped gradients, add noise, move.

Units are drawn by hushtune's own sampler, from the operating system's source. The noise is
floating-point noise of torch's generator, which starts from the operating system's randomness and
not from the run's public seed; it has the weaknesses of floating-point noise (Mironov, 2012).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hushtune.comparison.gradients import GradientSums
from hushtune.comparison.settings import FirstOrderPlan
from hushtune.privacy.sampling import PoissonSampler
from hushtune.privacy.steps import unspoken


class ComparisonFailed(ValueError):
    """A step that could not be computed; says nothing of what was computed."""


def train(
    parameters: Sequence[nn.Parameter],
    gradients: GradientSums,
    plan: FirstOrderPlan,
    *,
    units: int,
    after_step: Callable[[int], None],
) -> None:
    """Move the parameters through all steps of the plan.

    Args:
        units: number of examples in the data.
        after_step: told of every step that is done.

    Raises:
        ComparisonFailed: if a step's computation failed.
    """
    sampler = PoissonSampler(units=units, probability=plan.sampling_probability)
    generator = torch.Generator(device=parameters[0].device)
    generator.seed()
    optimizer = _optimizer(parameters, plan)
    deviation = plan.noise_multiplier * plan.clip_norm
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step)
        sums = unspoken(
            lambda: gradients.clipped_sum(sampler.sample(), plan.clip_norm),
            "a step failed with {}; the run's budget counts as spent.",
            ComparisonFailed,
        )
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = noised(total, deviation, generator) / plan.expected_units
        optimizer.step()
        after_step(step + 1)


def noised(total: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """`total` with normal noise of the given standard deviation on every entry."""
    noise = torch.empty_like(total).normal_(0.0, deviation, generator=generator)
    return total + noise


def learning_rate(plan: FirstOrderPlan, step: int) -> float:
    """η of a step, counted from 0."""
    left = 1.0 if plan.schedule == "constant" else 1 - step / plan.steps
    return plan.learning_rate * left


def _optimizer(parameters: Sequence[nn.Parameter], plan: FirstOrderPlan) -> torch.optim.Optimizer:
    if plan.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=plan.learning_rate)
    return torch.optim.AdamW(parameters, lr=plan.learning_rate)
