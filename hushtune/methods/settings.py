"""From a method's name and `auto` values to numbers.

`budget` fixes what does not need the model: directions, steps, batch. After the probe come clip,
noise and learning rate. Nothing here depends on private data but for the number of units, which
is public. The constants were chosen on the validation data of SST-2 and on a part of TREC's
training data; docs/results.md says how.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from hushtune.config import MethodConfig, PrivacyConfig
from hushtune.zo.estimators import Estimator
from hushtune.zo.update import NormalisedStepSize, PlainStepSize, StepSize

#: Clip, in units of the typical norm of a unit's vector of slopes on public text.
_CLIP_FACTOR = 0.75

#: Learning rate of the normalised update where noise is small, for a head and for anything else.
_HEAD_LEARNING_RATE = 1.0
_LEARNING_RATE = 0.3

#: Noise, in units of m·√(K·T), above which smaller steps do better.
_LARGE_NOISE = 7.5e-4


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
        update: "normalised" or "sgd"; see `hushtune.zo.update`.
        learning_rate: a (normalised) or η (sgd) of the first step.
        schedule: "constant" or "linear".
        typical_slope: m, root mean square slope of an example on public text.
    """

    distribution: str
    estimator: Estimator
    perturbation_scale: float
    update: Literal["normalised", "sgd"]
    learning_rate: float
    schedule: Literal["constant", "linear"]
    typical_slope: float

    def described(self, directions: int) -> str:
        """What a step looks at, in words."""
        return (
            f"{directions} {self.distribution} directions, {self.estimator}, "
            f"λ = {self.perturbation_scale:g}"
        )

    def step_size(self, steps: int) -> StepSize:
        """η_t over a run of so many steps."""
        if self.update == "sgd":
            return PlainStepSize(
                learning_rate=self.learning_rate, schedule=self.schedule, steps=steps
            )
        return NormalisedStepSize(
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            steps=steps,
            typical_slope=self.typical_slope,
        )


def budget(
    method: MethodConfig, privacy: PrivacyConfig, *, head_only: bool, population: int
) -> Budget:
    """Directions, steps and batch. With only a head moving, many directions cost nothing."""
    pure = privacy.mechanism == "laplace"
    directions = method.directions
    if directions == "auto":
        several = method.name in ("dp-aggzo", "mezo")
        directions = (64 if head_only and not pure else 16) if several else 1
    steps = method.steps
    if steps == "auto":
        # K·T is what averages the directions' own noise: few directions want more steps. Pure ε
        # composes linearly and wants few steps with large batches.
        few = directions < 16
        steps = (200 if few else 50) if pure else (2000 if few else 500)
    batch = method.batch
    if batch == "auto":
        share = 0.5 if pure else 0.1
        batch = share * population if head_only or pure else min(256.0, share * population)
        batch = max(1.0, float(round(batch)))
    distribution = method.distribution
    if distribution == "auto":
        # DPZero (Zhang et al., 2023) draws from the sphere of radius √d.
        distribution = "sphere" if method.name == "dpzero" else "rademacher"
    return Budget(distribution, directions, steps, batch)


def clip_norm(
    method: MethodConfig,
    privacy: PrivacyConfig,
    budget: Budget,
    typical_slope: float,
    *,
    most: float,
) -> float:
    """C: a multiple of the typical norm of a unit's vector of K slopes, on public text.

    Args:
        most: what a slope cannot exceed. No vector is longer than K of those make it, so C need
            not be more.
    """
    pure = privacy.mechanism == "laplace"
    # Norms of K slopes, each of size 1: L1 for Laplace noise, L2 for Gaussian.
    norm_of_ones = budget.directions if pure else math.sqrt(budget.directions)
    if method.clip_norm != "auto":
        return min(method.clip_norm, most * norm_of_ones)
    # √(2/π) is the mean absolute value of a nearly normal slope.
    mean = math.sqrt(2 / math.pi) if pure else 1.0
    return min(_CLIP_FACTOR * typical_slope * mean, most) * norm_of_ones


def learning_rate(
    method: MethodConfig, budget: Budget, *, head_only: bool, typical_slope: float, noise: float
) -> float:
    """The learning rate: as given, or a that shrinks where noise is large.

    Args:
        noise: standard deviation of a released mean slope.
    """
    if method.learning_rate != "auto":
        return method.learning_rate
    relative = noise / (typical_slope * math.sqrt(budget.directions * budget.steps))
    most = _HEAD_LEARNING_RATE if head_only else _LEARNING_RATE
    return most * min(1.0, math.sqrt(_LARGE_NOISE / relative) if relative else 1.0)


def estimator(
    method: MethodConfig,
    budget: Budget,
    dtypes: Iterable[torch.dtype],
    *,
    head_only: bool,
    smooth: bool,
) -> Estimator:
    """One-sided differences where they are accurate and save forward passes.

    Args:
        smooth: whether losses have gradients.
    """
    if method.estimator != "auto":
        return method.estimator
    # Quantised weights are integers; what they stand for is computed in the others' format.
    exact = all(dtype == torch.float32 for dtype in dtypes if dtype.is_floating_point)
    saves = budget.directions > 1 and not head_only
    return "one-sided" if exact and saves and smooth else "two-sided"
