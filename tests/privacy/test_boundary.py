"""What leaves the boundary is bounded per unit in integers, and noised as the plan says."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hushtune.privacy.boundary import Boundary, clip_to_grid, combine_rows
from hushtune.privacy.plan import PrivacyPlan

#: Every statistical test below raises a false alarm with this probability.
FALSE_ALARM = 1e-6

MECHANISMS = ("gaussian", "laplace")


def make_plan(mechanism: str = "gaussian", directions: int = 4, **changes) -> PrivacyPlan:
    values = {
        "mechanism": mechanism,
        "delta": 0.0 if mechanism == "laplace" else 1e-5,
        "adjacency": "add-or-remove-one",
        "unit": "example",
        "combine": "mean",
        "population": 100,
        "sampling_probability": 0.25,
        "steps": 3,
        "directions": directions,
        "clip_norm": 1.5,
        "noise_multiplier": 2.0,
    }
    return PrivacyPlan.with_noise(**values | changes)


def without_noise(plan: PrivacyPlan) -> Boundary:
    return Boundary(plan, add_noise=list)


def integer_norm_is_admissible(vector, plan: PrivacyPlan) -> bool:
    """Independent of the plan's own check."""
    vector = [abs(int(value)) for value in vector]
    if plan.mechanism == "laplace":
        return sum(vector) <= plan.sensitivity
    return (
        math.isqrt(sum(value**2 for value in vector) - 1 if any(vector) else 0) < plan.sensitivity
    )


EXTREMES = st.sampled_from(
    [0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, -5e-324, 2.2e-308, 1.8e308, -1.8e308, 1e154]
)
ANY_NUMBER = st.one_of(EXTREMES, st.floats(), st.floats(-10, 10))
MODERATE = st.floats(-1e100, 1e100).filter(lambda x: x == 0 or abs(x) > 1e-100)


@given(
    st.sampled_from(MECHANISMS),
    st.integers(1, 8).flatmap(
        lambda width: st.lists(st.lists(ANY_NUMBER, min_size=width, max_size=width), min_size=1)
    ),
    st.sampled_from([2.0**-500, 1e-9, 0.7, 1.0, 3.0, 1e12, 2.0**500]),
    st.sampled_from([2.0**-20, 0.3, 1.0, 77.0, 2.0**20]),
)
def test_no_input_leaves_more_than_the_sensitivity(mechanism, rows, clip_norm, noise_multiplier):
    plan = make_plan(
        mechanism,
        len(rows[0]),
        clip_norm=clip_norm,
        noise_multiplier=noise_multiplier,
        population=2,
    )
    for vector in clip_to_grid(np.array(rows), plan):
        assert integer_norm_is_admissible(vector, plan)


@given(st.sampled_from(MECHANISMS), st.lists(MODERATE, min_size=1, max_size=6))
@example("gaussian", [1.0, 54794159.0])  # in float64 its norm is that of its second coordinate
def test_clipping_keeps_the_direction_and_uses_the_whole_length(mechanism, vector):
    plan = make_plan(mechanism, len(vector), clip_norm=1e-101)
    largest = max(map(abs, vector))
    if largest == 0:
        return
    direction = [value / largest for value in vector]
    norm = math.hypot(*direction) if mechanism == "gaussian" else math.fsum(map(abs, direction))
    (clipped,) = clip_to_grid(np.array([vector]), plan)
    for value, component in zip(clipped.tolist(), direction, strict=True):
        wanted = abs(component) / norm * plan.sensitivity
        # Truncation takes up to one, and where the norm was rounded down the mend takes another.
        assert wanted * (1 - 1e-12) - 2 <= abs(value) <= wanted * (1 + 1e-12)
        assert value == 0 or (value > 0) == (component > 0)


@given(
    st.sampled_from(MECHANISMS), st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=6).map(tuple)
)
def test_small_vectors_are_untouched_up_to_the_grid(mechanism, vector):
    plan = make_plan(mechanism, len(vector), clip_norm=float(len(vector)))
    (kept,) = clip_to_grid(np.array([vector]), plan)
    for value, component in zip(kept.tolist(), vector, strict=True):
        distance = abs(component) / plan.grid - abs(value)
        assert -1e-6 < distance < 1 + 1e-6
        assert value == 0 or (value > 0) == (component > 0)


@given(st.integers(0, 2**24), st.floats(0, 0.99), st.sampled_from([1, -1]))
def test_truncation_is_toward_zero(whole, fraction, sign):
    plan = make_plan(directions=1)
    inside = np.array([[sign * (whole + fraction) * plan.grid]])
    assert clip_to_grid(inside, plan).tolist() == [[sign * whole]]


def test_a_vector_exactly_at_the_clip_is_kept():
    plan = make_plan(directions=2, clip_norm=1.0)
    kept = clip_to_grid(np.array([[0.6, 0.8], [-1.0, 0.0]]), plan)
    assert kept[1].tolist() == [-plan.sensitivity, 0]
    assert abs(kept[0] * plan.grid - [0.6, 0.8]).max() <= 2 * plan.grid


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_coordinate_that_is_not_finite_counts_as_zero(bad):
    plan = make_plan(directions=3)
    assert (
        clip_to_grid(np.array([[0.5, bad, -0.5]]), plan).tolist()
        == clip_to_grid(np.array([[0.5, 0.0, -0.5]]), plan).tolist()
    )


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("combine", ["mean", "sum"])
@given(seed=st.integers(0, 2**32))
def test_a_unit_with_half_of_all_rows_is_bounded_like_any_other(mechanism, combine, seed):
    plan = make_plan(mechanism, combine=combine)
    draw = np.random.default_rng(seed)
    unit_of_row = np.concatenate([np.zeros(20, dtype=int), np.arange(1, 21)])
    scalars = draw.standard_cauchy((40, 4)) * 10.0 ** draw.integers(-3, 4)
    boundary = without_noise(plan)
    with_unit = boundary.release(scalars, unit_of_row)
    without = boundary.release(scalars[20:], unit_of_row[20:])
    difference = [one - other for one, other in zip(with_unit, without, strict=True)]
    assert integer_norm_is_admissible(difference, plan)


def test_mean_and_sum_of_a_units_rows():
    rows, units = np.array([[1.0], [2.0], [6.0], [5.0]]), np.array([4, 4, 4, 9])
    assert combine_rows(rows, units, "mean").tolist() == [[3.0], [5.0]]
    assert combine_rows(rows, units, "sum").tolist() == [[9.0], [5.0]]


@given(st.permutations(range(12)), st.integers(0, 12))
def test_the_sum_does_not_depend_on_order_or_micro_batches(order, cut):
    plan = make_plan()
    scalars = np.random.default_rng(0).standard_cauchy((12, 4))
    boundary = without_noise(plan)
    units = np.arange(12)
    whole = boundary.release(scalars, units)
    assert boundary.release(scalars[order], units[order]) == whole
    pieces = [boundary.release(scalars[part], units[part]) for part in (order[:cut], order[cut:])]
    assert tuple(map(sum, zip(*pieces, strict=True))) == whole


@pytest.mark.parametrize("directions", [1, 3, 64])
def test_one_integer_is_released_for_each_direction(directions):
    released = Boundary(make_plan(directions=directions)).release(
        np.ones((2, directions)), np.arange(2)
    )
    assert len(released) == directions
    assert all(type(value) is int for value in released)


def test_a_matrix_of_another_width_is_refused_without_a_word_about_the_rows():
    boundary = Boundary(make_plan(directions=3))
    with pytest.raises(ValueError, match="rows, 3") as refusal:
        boundary.release(np.zeros((7919, 2)), np.arange(7919))
    assert "7919" not in str(refusal.value)


def test_more_units_than_declared_cannot_make_the_sum_wrap_around():
    plan = make_plan(directions=1, noise_multiplier=2.0**-20, population=1)
    units = 2**63 // plan.sensitivity + 2
    for sign in (1, -1):
        scalars = np.full((units, 1), sign * plan.clip_norm)
        released = without_noise(plan).release(scalars, np.arange(units))
        assert released == (sign * (2**63 - 1),)
        assert abs(Boundary(plan).release(scalars, np.arange(units))[0]) <= 2**63


def draw_noise(plan: PrivacyPlan, releases: int) -> np.ndarray:
    """(releases, K): what empty samples release is noise and nothing else."""
    boundary = Boundary(plan)
    nobody, no_units = np.empty((0, plan.directions)), np.empty(0, dtype=np.int64)
    return np.array([boundary.release(nobody, no_units) for _ in range(releases)])


def smallest_p_value(noise: np.ndarray, mechanism: str, scale: int) -> float:
    """Of a test of scale and a test of shape, corrected for there being two.

    At scales from 2^32 on the exact discrete distributions and the continuous ones differ by less
    than 1e-9 in distribution, far below what 1e5 draws can tell apart.
    """
    relative = noise.ravel() / scale
    if mechanism == "gaussian":
        size = scipy.stats.chi2(relative.size).cdf((relative**2).sum())
        shape = scipy.stats.kstest(relative, "norm").pvalue
    else:
        size = scipy.stats.gamma(relative.size).cdf(np.abs(relative).sum())
        shape = scipy.stats.kstest(relative, "laplace").pvalue
    return 2 * min(2 * min(size, 1 - size), shape)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_noise_has_the_distribution_and_the_scale_of_the_plan(mechanism):
    plan = make_plan(mechanism, directions=10_000)
    noise = draw_noise(plan, 10)
    assert smallest_p_value(noise, mechanism, plan.noise_scale) > FALSE_ALARM
    # Exact integers: the last bits are uniform, which rounded floats of a coarser grid are not.
    last_bits = np.bincount(noise.ravel() % 16, minlength=16)
    assert scipy.stats.chisquare(last_bits).pvalue > FALSE_ALARM
    # Neighbouring coordinates, and the same coordinate in two releases, are independent.
    signs = np.where(noise < 0, -1, 1)
    for agreement in (signs[:, 1:] * signs[:, :-1], signs[1:] * signs[:-1]):
        agreeing = int((agreement == 1).sum())
        assert scipy.stats.binomtest(agreeing, agreement.size).pvalue > FALSE_ALARM


@pytest.mark.parametrize(("mechanism", "factor"), [*itertools.product(MECHANISMS, [0.97, 1.03])])
def test_the_same_test_rejects_a_scale_that_is_off_by_three_percent(mechanism, factor):
    plan = make_plan(mechanism, directions=10_000, noise_multiplier=4.0)
    off = dataclasses.replace(plan, noise_scale=round(plan.noise_scale * factor))
    noise = draw_noise(off, 10)
    assert smallest_p_value(noise, mechanism, plan.noise_scale) < FALSE_ALARM


def test_noise_has_no_seed_within_the_process():
    drawn = []
    for _ in range(2):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        drawn.append(draw_noise(make_plan(), 3).tolist())
    assert drawn[0] != drawn[1]


PUBLISH_SECRETS = """
    import os, random
    import numpy as np
    random.seed(1)
    np.random.seed(1)
    from hushtune.privacy.boundary import Boundary
    from hushtune.privacy.plan import PrivacyPlan
    from hushtune.privacy.sampling import PoissonSampler

    plan = PrivacyPlan.with_noise(
        mechanism="gaussian", delta=1e-5, adjacency="add-or-remove-one", unit="example",
        combine="mean", population=100, sampling_probability=0.5, steps=1, directions=2,
        clip_norm=1.0, noise_multiplier=1.0,
    )
    boundary, sampler = Boundary(plan), PoissonSampler(units=64, probability=0.5)
    secrets = lambda: (*boundary.release(np.empty((0, 2)), np.empty(0, int)), *sampler.sample())
    print(*secrets(), flush=True)
    child = os.fork()
    print(*secrets(), flush=True)
    if child:
        os.waitpid(child, 0)
"""


def test_noise_and_sampling_have_no_seed_from_outside_and_none_in_common_after_a_fork():
    printed = []
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PUBLISH_SECRETS)],
            env={"PYTHONHASHSEED": "1", "PATH": "", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        printed += result.stdout.splitlines()
    noise = [tuple(line.split()[:2]) for line in printed]
    sampled = [tuple(line.split()[2:]) for line in printed]
    assert len(printed) == len(set(noise)) == len(set(sampled)) == 6
