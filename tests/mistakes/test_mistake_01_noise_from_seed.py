"""Mistake 1: the noise is a function of the public seed, so that anybody can subtract it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from insider import flagged, make_config, train_run

from hushtune.privacy import boundary as boundaries
from hushtune.privacy.plan import PrivacyPlan


def check(encoder: str, data: str, folder: Path) -> None:
    """Two runs that agree in all that is public, with everybody taking part in each step.

    Their first sums are equal, so their first releases differ in the noise alone: by twice the
    noise scale on average over 64 integers. It is below half of it with a probability far below
    1e-6.
    """
    first, scale = [], 1
    for name in ("one", "other"):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        config = make_config(encoder, data, folder / name, batch=60.0, directions=64, steps=1)
        record = train_run(config)
        first.append(np.array(record.releases[0], dtype=float))
        scale = record.header["plan"]["noise_scale"]
    difference = np.sqrt(np.mean((first[0] - first[1]) ** 2)) / scale
    assert difference > 0.5, "the noise can be computed from what is public"


def seeded_numpy_noise(plan: PrivacyPlan) -> Callable[[list[int]], list[int]]:
    """The generator is seeded with the public seed and the number of the step."""
    charge = 0

    def add(total: list[int]) -> list[int]:
        nonlocal charge
        noise = np.random.default_rng(0 + charge).laplace(scale=plan.noise_scale, size=len(total))
        charge += 1
        return [value + round(extra) for value, extra in zip(total, noise, strict=True)]

    return add


def noise_after_the_directions(plan: PrivacyPlan) -> Callable[[list[int]], list[int]]:
    """As in DPZero: the generator of the directions, which has just been reseeded for the step."""

    def add(total: list[int]) -> list[int]:
        torch.manual_seed(0)
        noise = torch.normal(torch.zeros(len(total)), float(plan.noise_scale))
        return [value + round(extra) for value, extra in zip(total, noise.tolist(), strict=True)]

    return add


def noise_of_the_global_generator(plan: PrivacyPlan) -> Callable[[list[int]], list[int]]:
    """No seed of its own, but one that a script sets at its beginning."""

    def add(total: list[int]) -> list[int]:
        return [value + round(random.gauss(0, plan.noise_scale)) for value in total]

    return add


def test_the_noise_cannot_be_computed_from_the_public_seed(encoder_folder, reviews, tmp_path):
    check(encoder_folder, reviews, tmp_path)


@pytest.mark.parametrize(
    "fault", [seeded_numpy_noise, noise_after_the_directions, noise_of_the_global_generator]
)
def test_the_check_flags(fault, encoder_folder, reviews, tmp_path, monkeypatch):
    monkeypatch.setattr(boundaries, "exact_noise", fault)
    with flagged("computed from what is public"):
        check(encoder_folder, reviews, tmp_path)
