"""From losses at perturbed parameters to slopes along directions.

    two-sided   s[u,k] = (ℓ_u(θ + λ z_k) − ℓ_u(θ − λ z_k)) / 2λ      2K forward passes
    one-sided   s[u,k] = (ℓ_u(θ + λ z_k) − ℓ_u(θ)) / λ               K + 1 forward passes

The two-sided difference is exact up to third order in λ; the one-sided one shares the base loss
between all directions and suits float32.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Estimator = Literal["two-sided", "one-sided"]


class Move(NamedTuple):
    """Where a forward pass looks: θ + scale · z_direction; scale 0 is θ itself."""

    direction: int
    scale: float


def moves(estimator: Estimator, directions: int, perturbation_scale: float) -> list[Move]:
    """The forward passes of one step, in the order that `slopes` expects."""
    if estimator == "two-sided":
        return [
            Move(k, sign * perturbation_scale) for k in range(directions) for sign in (1.0, -1.0)
        ]
    return [Move(0, 0.0)] + [Move(k, perturbation_scale) for k in range(directions)]


def slopes(estimator: Estimator, losses: np.ndarray, perturbation_scale: float) -> np.ndarray:
    """(rows, K) float64 slopes from (rows, moves) losses; non-finite losses stay non-finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        if estimator == "two-sided":
            return (losses[:, 0::2] - losses[:, 1::2]) / (2 * perturbation_scale)
        return (losses[:, 1:] - losses[:, :1]) / perturbation_scale
