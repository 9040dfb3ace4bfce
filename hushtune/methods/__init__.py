"""Each paper as a short preset over the same parts, and what `auto` means."""

from hushtune.methods.settings import (
    Budget,
    Settings,
    budget,
    clip_norm,
    estimator,
    learning_rate,
)

__all__ = ["Budget", "Settings", "budget", "clip_norm", "estimator", "learning_rate"]
