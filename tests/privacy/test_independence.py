"""No secret draw says anything about another one: noise by coordinate and release, participation
by unit and step.

The measure is a correlation with a tail bound that holds for any number of draws. Let X be
independent of Y, with independent, centred entries that are sub-Gaussian of proxy ρ. Given Y,
Σ XᵢYᵢ / ‖Y‖ is sub-Gaussian of proxy ρ as well, so it exceeds t with probability at most
2 exp(−t² / 2ρ). Uniform variables have ρ equal to their variance; indicators have ρ ≤ 1/4
(Hoeffding's lemma). All pairs are tried, and the bound is spread over them.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import scipy.stats

from hushtune.privacy.boundary import Boundary
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.sampling import PoissonSampler, representable_probability

#: Of each test of this file, of which there are fewer than 50.
FALSE_ALARM = 1e-8

MECHANISMS = ("gaussian", "laplace")
RELEASES, DIRECTIONS = 200, 400
STEPS, UNITS, PROBABILITY = 3000, 200, 0.3


def dependence(values: np.ndarray, proxy: float) -> float:
    """Upper bound on the p-value of independence of all entries of a matrix.

    Compared are all pairs of rows, also with one of them turned by a place, all pairs of columns,
    all columns of even rows with all columns of the next rows, even rows as a whole with the next,
    and even columns with the next.
    """
    turned = np.roll(values, 1, axis=1)
    rows, next_rows = values[0::2], values[1::2]
    columns, next_columns = values[:, 0::2], values[:, 1::2]
    largest = [
        off_diagonal(values @ values.T, values, axis=1),
        off_diagonal(values @ turned.T, turned, axis=1),
        off_diagonal(values.T @ values, values, axis=0),
        np.abs(next_rows.T @ rows / np.linalg.norm(rows, axis=0)).max(),
        abs((next_rows * rows).sum() / np.linalg.norm(rows)),
        abs((next_columns * columns).sum() / np.linalg.norm(columns)),
    ]
    tried = 2 * len(values) ** 2 + 2 * values.shape[1] ** 2 + 2
    return min(1.0, 2 * tried * math.exp(-(max(largest) ** 2) / (2 * proxy)))


def off_diagonal(products: np.ndarray, values: np.ndarray, axis: int) -> float:
    """The largest |Σ XᵢYᵢ| / ‖Y‖ of two different vectors."""
    normed = np.abs(products / np.linalg.norm(values, axis=axis))
    np.fill_diagonal(normed, 0.0)
    return float(normed.max())


@functools.cache
def noise(mechanism: str) -> tuple[np.ndarray, int]:
    """(releases, directions) of what a boundary releases of nobody, and its scale."""
    plan = PrivacyPlan.with_noise(
        mechanism=mechanism,
        delta=0.0 if mechanism == "laplace" else 1e-5,
        adjacency="add-or-remove-one",
        unit="example",
        combine="mean",
        population=100,
        sampling_probability=0.25,
        steps=RELEASES,
        directions=DIRECTIONS,
        clip_norm=1.0,
        noise_multiplier=1.0,
    )
    boundary, nobody = Boundary(plan), (np.empty((0, DIRECTIONS)), np.empty(0, dtype=np.int64))
    return np.array([boundary.release(*nobody) for _ in range(RELEASES)]), plan.noise_scale


def noise_dependence(drawn: np.ndarray, mechanism: str, scale: int) -> float:
    """Of the ranks under the law, which are uniform; centred, of variance 1."""
    law = scipy.stats.norm if mechanism == "gaussian" else scipy.stats.laplace
    return dependence(math.sqrt(12) * (law.cdf(drawn / scale) - 0.5), proxy=1.0)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_noise_is_independent_across_coordinates_and_releases(mechanism):
    drawn, scale = noise(mechanism)
    assert noise_dependence(drawn, mechanism, scale) > FALSE_ALARM


def release_used_again(drawn: np.ndarray) -> None:
    """Long after, as after a restart from a kept state."""
    drawn[150] = drawn[7]


def most_of_a_release_used_again(drawn: np.ndarray) -> None:
    drawn[150, 100:] = drawn[7, 100:]


def coordinate_used_twice(drawn: np.ndarray) -> None:
    drawn[:, 200] = drawn[:, 3]


def one_draw_for_all_coordinates(drawn: np.ndarray) -> None:
    drawn[:] = drawn[:, :1]


def stream_that_moves_on_by_one(drawn: np.ndarray) -> None:
    for release in range(1, len(drawn)):
        drawn[release, 1:] = drawn[release - 1, :-1]


def little_of_the_release_before(drawn: np.ndarray) -> None:
    drawn[1:] += drawn[:-1] // 8


@pytest.mark.parametrize(
    "fault",
    [
        release_used_again,
        most_of_a_release_used_again,
        coordinate_used_twice,
        one_draw_for_all_coordinates,
        stream_that_moves_on_by_one,
        little_of_the_release_before,
    ],
)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_noise_used_twice_is_rejected(mechanism, fault):
    drawn, scale = noise(mechanism)
    drawn = drawn.copy()
    fault(drawn)
    assert noise_dependence(drawn, mechanism, scale) < FALSE_ALARM


@functools.cache
def participation() -> np.ndarray:
    """(steps, units) whether the unit took part."""
    sampler = PoissonSampler(units=UNITS, probability=representable_probability(PROBABILITY))
    taken = np.zeros((STEPS, UNITS), dtype=bool)
    for step in taken:
        step[sampler.sample()] = True
    return taken


def participation_dependence(taken: np.ndarray) -> float:
    return dependence(taken - representable_probability(PROBABILITY), proxy=0.25)


def frequency(taken: np.ndarray) -> float:
    """Upper bound on the p-value of every unit's, and of every step's, share being q.

    By Hoeffding's inequality: a share of n is off by d with probability at most 2 exp(−2 n d²).
    """
    exponents = [
        2 * taken.shape[axis] * np.abs(taken.mean(axis=axis) - PROBABILITY).max() ** 2
        for axis in (0, 1)
    ]
    return min(1.0, 2 * sum(taken.shape) * math.exp(-max(exponents)))


def test_units_take_part_independently_across_units_and_steps():
    assert participation_dependence(participation()) > FALSE_ALARM


def test_every_unit_and_every_step_has_its_share():
    assert frequency(participation()) > FALSE_ALARM


def units_that_come_together(taken: np.ndarray) -> None:
    taken[:, 150] = taken[:, 4]


def units_that_avoid_each_other(taken: np.ndarray) -> None:
    taken[:, 150] &= ~taken[:, 4]


def sample_used_again(taken: np.ndarray) -> None:
    taken[2000] = taken[2]


def sample_used_twice_in_a_row(taken: np.ndarray) -> None:
    taken[1::2] = taken[0::2]


def units_that_rest_after_their_turn(taken: np.ndarray) -> None:
    for step in range(1, len(taken)):
        taken[step] &= ~taken[step - 1]


@pytest.mark.parametrize(
    "fault",
    [
        units_that_come_together,
        units_that_avoid_each_other,
        sample_used_again,
        sample_used_twice_in_a_row,
        units_that_rest_after_their_turn,
    ],
)
def test_participation_that_depends_is_rejected(fault):
    taken = participation().copy()
    fault(taken)
    assert participation_dependence(taken) < FALSE_ALARM


def test_a_unit_or_a_step_that_is_off_is_rejected():
    for wrong in ((slice(None), 9), (9, slice(None))):
        taken = participation().copy()
        taken[wrong] = np.random.default_rng(0).random(taken[wrong].shape) < 0.8
        assert frequency(taken) < FALSE_ALARM
