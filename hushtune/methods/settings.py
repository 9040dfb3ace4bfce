"""From a method's name and `auto` values to numbers.

`budget` fixes what does not need the model: directions, steps, batch. After the probe `complete`
adds what does: λ, clip and learning rate. Nothing here depends on private data but for the number
of units, which is public.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hushtune.config import MethodConfig, PrivacyConfig
from hushtune.zo.estimators import Estimator

#: The clip, in units of the typical norm of a vector of slopes.
_CLIP_FACTOR = 1.0


@dataclass(frozen=True)
class Budget:
    """How much is spent: directions a step, steps, expected units a step."""

    distribution: str
    directions: int
    steps: int
    batch: float


@dataclass(frozen=True)
class Settings:
    """A method's settings, resolved.

    Attributes:
        distribution: of the directions' entries.
        estimator: two-sided or one-sided differences.
        perturbation_scale: λ.
        clip_norm: C.
        learning_rate: η of the first step.
        schedule: "constant" or "linear".
    """

    distribution: str
    estimator: Estimator
    perturbation_scale: float
    clip_norm: float
    learning_rate: float
    schedule: str


def budget(
    method: MethodConfig, privacy: PrivacyConfig, *, head_only: bool, population: int
) -> Budget:
    """Directions, steps and batch. With only a head moving, many directions cost nothing."""
    pure = privacy.mechanism == "laplace"
    directions = method.directions
    if directions == "auto":
        directions = 1
        if method.name in ("dp-aggzo", "mezo"):
            directions = 64 if head_only else 16
        if pure:
            directions = 1
    steps = method.steps
    if steps == "auto":
        steps = 100 if pure else 500
    batch = method.batch
    if batch == "auto":
        share = 0.5 if pure else 0.1
        batch = float(population) * share if head_only else min(256.0, float(population) * share)
        batch = max(1.0, round(batch))
    distribution = method.distribution
    if distribution == "auto":
        # DPZero (Zhang et al., 2023) draws from the sphere of radius √d.
        distribution = "sphere" if method.name == "dpzero" else "rademacher"
    return Budget(distribution, directions, steps, batch)


def clip_norm(method: MethodConfig, budget: Budget, typical_slope: float) -> float:
    """C: a multiple of the typical norm of a unit's vector of K slopes, on public text."""
    if method.clip_norm != "auto":
        return method.clip_norm
    return _CLIP_FACTOR * typical_slope * math.sqrt(budget.directions)


def settings(
    method: MethodConfig,
    budget: Budget,
    plan: Any,
    *,
    clip_norm: float,
    perturbation_scale: float,
    parameters: dict[str, nn.Parameter],
    head_only: bool,
) -> Settings:
    """The settings that follow once clip and noise are known."""
    return Settings(
        distribution=budget.distribution,
        estimator=_estimator(method, budget, parameters, head_only=head_only),
        perturbation_scale=perturbation_scale,
        clip_norm=clip_norm,
        learning_rate=1.0 if method.learning_rate == "auto" else method.learning_rate,
        schedule="linear" if method.schedule == "auto" else method.schedule,
    )


def _estimator(
    method: MethodConfig, budget: Budget, parameters: dict[str, nn.Parameter], *, head_only: bool
) -> Estimator:
    """One-sided differences where they are accurate and save forward passes."""
    if method.estimator != "auto":
        return method.estimator
    exact = all(parameter.dtype == torch.float32 for parameter in parameters.values())
    saves = budget.directions > 1 and not head_only
    return "one-sided" if exact and saves else "two-sided"
