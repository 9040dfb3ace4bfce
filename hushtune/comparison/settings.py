"""What `auto` means for DP-SGD, and the noise that the accountant asks for.

For label vectors AdamW's constants were chosen at ε = 2 on a fifth of TREC's training data, and
tried on a fifth of SST-2's; for anything else its learning rate was, with adapters in MiniLM's last
layer (docs/results.md). The others were not tuned here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hushtune.config import Config, resolved_delta
from hushtune.privacy import accounting
from hushtune.privacy.sampling import representable_probability

#: What every file and table of such a run says of it.
LABEL = "comparison: floating-point noise, no ledger, no replay, no isolation guarantee"


@dataclass(frozen=True)
class _Defaults:
    """Expected units a step as a share of all, steps, clip, and learning rates."""

    share: float
    steps: int
    clip_norm: float
    learning_rate: dict[str, float]


#: Label vectors alone: their gradients are large, up to ten times √2.
_HEAD = _Defaults(0.1, 500, 2.0, {"adamw": 0.01, "sgd": 0.8})

#: Anything else.
_INSIDE = _Defaults(0.04, 100, 1.0, {"adamw": 0.02, "sgd": 1.0})


@dataclass(frozen=True, kw_only=True)
class FirstOrderPlan:
    """A fixed number of Poisson-sampled, clipped and noised gradient sums.

    Attributes:
        population: n, the number of examples.
        sampling_probability: q, a multiple of 2^-32.
        steps: T.
        clip_norm: C, the bound on the L2 norm of an example's gradient.
        noise_multiplier: σ/C.
        delta: δ of the guarantee.
        adjacency: which data sets count as neighbours.
        optimizer: what moves the parameters along the noised mean gradient.
        learning_rate: of the first step.
        schedule: "constant", or "linear" down to zero.
    """

    population: int
    sampling_probability: float
    steps: int
    clip_norm: float
    noise_multiplier: float
    delta: float
    adjacency: str
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    schedule: Literal["constant", "linear"]

    @property
    def expected_units(self) -> float:
        """q·n, the constant that every sum is divided by."""
        return self.sampling_probability * self.population

    def epsilon(self) -> float:
        """ε of all steps, were the noise drawn exactly."""
        return accounting.epsilon(
            mechanism="gaussian",
            noise_multiplier=self.noise_multiplier,
            sampling_probability=self.sampling_probability,
            steps=self.steps,
            delta=self.delta,
            adjacency=self.adjacency,
        )


def make_plan(config: Config, *, head_only: bool, population: int) -> FirstOrderPlan:
    """The plan with the least noise whose ε is at most `privacy.epsilon`.

    Raises:
        ValueError: if a value is out of range; the message names it and what is accepted.
    """
    method, privacy = config.method, config.privacy
    defaults = _HEAD if head_only else _INSIDE
    steps = defaults.steps if method.steps == "auto" else method.steps
    batch = method.batch
    if batch == "auto":
        batch = max(1.0, float(round(defaults.share * population)))
    delta = resolved_delta(privacy, population)
    probability = representable_probability(batch / population)
    optimizer = "sgd" if method.optimizer == "sgd" else "adamw"
    learning_rate = method.learning_rate
    return FirstOrderPlan(
        population=population,
        sampling_probability=probability,
        steps=steps,
        clip_norm=defaults.clip_norm if method.clip_norm == "auto" else method.clip_norm,
        noise_multiplier=accounting.calibrate(
            mechanism="gaussian",
            epsilon=privacy.epsilon or 0.0,
            delta=delta,
            sampling_probability=probability,
            steps=steps,
            adjacency=privacy.adjacency,
        ),
        delta=delta,
        adjacency=privacy.adjacency,
        optimizer=optimizer,
        learning_rate=defaults.learning_rate[optimizer]
        if learning_rate == "auto"
        else learning_rate,
        schedule="linear" if method.schedule == "auto" else method.schedule,
    )
