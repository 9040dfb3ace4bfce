"""Faults in the boundary and in the sampler: each puts a wrong part into the running code."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from hushtune.privacy import boundary as boundaries
from hushtune.privacy.boundary import AddNoise, Boundary, clip_to_grid, combine_rows, exact_noise
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.sampling import PoissonSampler

Plant = Callable[[pytest.MonkeyPatch], None]


def _noise(make: Callable[[PrivacyPlan], AddNoise]) -> Plant:
    return lambda patch: patch.setattr(boundaries, "exact_noise", make)


def _clip(clip: Callable[[np.ndarray, PrivacyPlan], np.ndarray]) -> Plant:
    return lambda patch: patch.setattr(boundaries, "clip_to_grid", clip)


def _sum(total: Callable[[np.ndarray], list[int]]) -> Plant:
    return lambda patch: patch.setattr(boundaries, "exact_sum", total)


def _sample(sample: Callable[[PoissonSampler], np.ndarray]) -> Plant:
    return lambda patch: patch.setattr(PoissonSampler, "sample", sample)


def _drawn(draw: Callable[[int], np.ndarray]) -> AddNoise:
    """Adds `draw(how many)`, rounded."""
    return lambda total: [
        value + int(extra) for value, extra in zip(total, np.rint(draw(len(total))), strict=True)
    ]


# Noise


def scaled_noise(factor: float) -> Plant:
    def make(plan: PrivacyPlan) -> AddNoise:
        return exact_noise(dataclasses.replace(plan, noise_scale=round(plan.noise_scale * factor)))

    return _noise(make)


@_noise
def laplace_for_gaussian(plan: PrivacyPlan) -> AddNoise:
    scale = round(plan.noise_scale / math.sqrt(2))
    return exact_noise(dataclasses.replace(plan, mechanism="laplace", noise_scale=scale))


@_noise
def cut_tails(plan: PrivacyPlan) -> AddNoise:
    def draw(count: int) -> np.ndarray:
        values = np.random.default_rng().normal(size=2 * count)
        return plan.noise_scale * values[np.abs(values) < 3][:count]

    return _drawn(draw)


@_noise
def single_precision_noise(plan: PrivacyPlan) -> AddNoise:
    def draw(count: int) -> np.ndarray:
        values = np.random.default_rng().standard_normal(count, dtype=np.float32)
        return (np.float32(plan.noise_scale) * values).astype(np.float64)

    return _drawn(draw)


@_noise
def one_noise_for_all_directions(plan: PrivacyPlan) -> AddNoise:
    once = exact_noise(dataclasses.replace(plan, directions=1))

    def add(total: list[int]) -> list[int]:
        (noise,) = once([0])
        return [value + noise for value in total]

    return add


@_noise
def noise_used_twice(plan: PrivacyPlan) -> AddNoise:
    fresh, kept = exact_noise(plan), []

    def add(total: list[int]) -> list[int]:
        if kept:
            noise = kept.pop()
        else:
            noise = fresh([0] * len(total))
            kept.append(noise)
        return [value + extra for value, extra in zip(total, noise, strict=True)]

    return add


@_noise
def noise_from_a_list(plan: PrivacyPlan) -> AddNoise:
    fresh, drawn, calls = exact_noise(plan), [], 0

    def add(total: list[int]) -> list[int]:
        nonlocal calls
        if len(drawn) < 50:
            drawn.append(fresh([0] * len(total)))
        calls += 1
        return [v + extra for v, extra in zip(total, drawn[calls % len(drawn) - 1], strict=True)]

    return add


@_noise
def noise_from_seed(plan: PrivacyPlan) -> AddNoise:
    charge = 0

    def draw(count: int) -> np.ndarray:
        nonlocal charge
        charge += 1
        return np.random.default_rng((7, charge)).normal(scale=plan.noise_scale, size=count)

    return _drawn(draw)


@_noise
def noise_from_global_generator(plan: PrivacyPlan) -> AddNoise:
    return _drawn(lambda count: np.array([random.gauss(0, plan.noise_scale) for _ in range(count)]))


def no_noise_for_nobody(patch: pytest.MonkeyPatch) -> None:
    release = Boundary.release

    def skip(self: Boundary, scalars: np.ndarray, units: np.ndarray) -> tuple[int, ...]:
        return release(self, scalars, units) if len(scalars) else (0,) * scalars.shape[1]

    patch.setattr(Boundary, "release", skip)


def noise_by_size(patch: pytest.MonkeyPatch) -> None:
    def release(self: Boundary, scalars: np.ndarray, units: np.ndarray) -> tuple[int, ...]:
        total = boundaries.exact_sum(
            clip_to_grid(combine_rows(scalars, units, self.plan.combine), self.plan)
        )
        noised = self._add_noise([0] * len(total))
        factor = max(1, len(set(units.tolist()))) / self.plan.expected_units
        return tuple(
            value + round(factor * extra) for value, extra in zip(total, noised, strict=True)
        )

    patch.setattr(Boundary, "release", release)


# Sensitivity


@_clip
def no_clip(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    finite = np.where(np.isfinite(per_unit), per_unit, 0.0)
    with np.errstate(over="ignore"):
        return np.trunc(np.clip(finite / plan.grid, -(2.0**62), 2.0**62)).astype(np.int64)


@_clip
def clip_the_mean(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    if not len(per_unit):
        return clip_to_grid(per_unit, plan)
    with np.errstate(over="ignore", invalid="ignore"):
        return clip_to_grid(per_unit.mean(axis=0, keepdims=True), plan)


@_clip
def clip_each_direction(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    return np.hstack([clip_to_grid(column[:, None], plan) for column in per_unit.T])


@_clip
def clip_in_l2(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    return clip_to_grid(per_unit, dataclasses.replace(plan, mechanism="gaussian"))


@_clip
def round_to_nearest(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    finite = np.clip(np.where(np.isfinite(per_unit), per_unit, 0.0), -1e100, 1e100)
    norms = np.maximum(plan.norm(finite), plan.clip_norm)
    return np.rint(finite / norms * plan.sensitivity).astype(np.int64)


@_clip
def nan_passes(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    with np.errstate(all="ignore"):
        scaled = per_unit * np.minimum(1, plan.clip_norm / plan.norm(per_unit))
        return np.trunc(scaled / plan.grid).astype(np.int64)


def rows_as_units(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(boundaries, "combine_rows", lambda scalars, *_: scalars)


@_clip
def clip_at_the_median(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    clipped = clip_to_grid(per_unit, plan)
    norms = np.linalg.norm(clipped.astype(np.float64), axis=1, keepdims=True)
    median = np.median(norms) if len(norms) else 1.0
    return np.trunc(clipped * np.minimum(1, median / np.maximum(norms, 1))).astype(np.int64)


@_sum
def single_precision_sum(bounded: np.ndarray) -> list[int]:
    return [int(total) for total in bounded.astype(np.float32).sum(axis=0)]


@_sum
def divided_by_size(bounded: np.ndarray) -> list[int]:
    return [total // max(1, len(bounded)) for total in bounded.sum(axis=0).tolist()]


@_sum
def first_unit_twice(bounded: np.ndarray) -> list[int]:
    return (bounded.sum(axis=0) + bounded[:1].sum(axis=0)).tolist()


def clip_after_the_sum(patch: pytest.MonkeyPatch) -> None:
    """Adds a unit by subtracting what the running sum was before: exact but for rounding."""

    def clip(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
        running, taken = np.zeros(per_unit.shape[1]), [np.zeros((0, per_unit.shape[1]))]
        for vector in np.clip(np.nan_to_num(per_unit), -1e100, 1e100):
            taken.append((running + vector - running)[None])
            running = running + vector
        return clip_to_grid(np.concatenate(taken), plan)

    patch.setattr(boundaries, "clip_to_grid", clip)


# Sampling


@_sample
def shuffled_epochs(sampler: PoissonSampler) -> np.ndarray:
    left = vars(sampler).setdefault("left", [])
    if not left:
        size = max(1, round(sampler._units * sampler.probability))
        order = np.random.default_rng().permutation(sampler._units)
        left.extend(np.split(order, range(size, sampler._units, size)))
    return np.sort(left.pop())


@_sample
def fixed_size(sampler: PoissonSampler) -> np.ndarray:
    size = round(sampler._units * sampler.probability)
    return np.sort(np.random.default_rng().choice(sampler._units, size=size, replace=False))


@_sample
def doubled(sampler: PoissonSampler) -> np.ndarray:
    return np.flatnonzero(np.random.default_rng().random(sampler._units) < 2 * sampler.probability)


@_sample
def eight_bit_coins(sampler: PoissonSampler) -> np.ndarray:
    coins = np.frombuffer(sampler._random_bytes(sampler._units), dtype=np.uint8)
    return np.flatnonzero(coins < round(256 * sampler.probability))


@_sample
def first_unit_always(sampler: PoissonSampler) -> np.ndarray:
    coins = np.random.default_rng().random(sampler._units)
    coins[0] = 0
    return np.flatnonzero(coins < sampler.probability)


@_sample
def blocks(sampler: PoissonSampler) -> np.ndarray:
    coins = np.random.default_rng().random((sampler._units + 1) // 2).repeat(2)
    return np.flatnonzero(coins[: sampler._units] < sampler.probability)


@_sample
def resting(sampler: PoissonSampler) -> np.ndarray:
    """As often as accounted all the same: who did not rest takes part more often."""
    q = sampler.probability
    rested = vars(sampler).get("last", np.zeros(sampler._units, dtype=bool))
    taken = ~rested & (np.random.default_rng().random(sampler._units) < q / (1 - q))
    vars(sampler)["last"] = taken
    return np.flatnonzero(taken)


@_sample
def seeded_sampler(sampler: PoissonSampler) -> np.ndarray:
    draw = vars(sampler).setdefault("draw", np.random.default_rng(7))
    return np.flatnonzero(draw.random(sampler._units) < sampler.probability)
