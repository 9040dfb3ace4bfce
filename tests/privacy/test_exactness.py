"""The sum is the same integers whoever adds it up, in whatever order.

What is claimed, and no more:

- Given the scalars, the sum over units is a function of which unit has which rows, in the unit's
  own order. The order of units, how rows of different units alternate, how rows were cut into
  micro-batches, the memory layout, and how many workers or threads share the units do not change
  one integer. Workers add up their un-noised partial sums as integers.
- At fixed micro-batch shapes and a fixed number of threads, the order of the data's rows and of the
  sampled units does not change one released integer of a whole run, noise left out.

Not claimed: that another micro-batch shape, number of threads or machine gives the same float
scalars. It may give others, of the same examples, before the boundary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mistakes.insider import make_config, read_data, train_without_noise

from hushtune.privacy import boundary as boundaries
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.plan import PrivacyPlan
from hushtune.tasks.data import LabelledText
from hushtune.tasks.task import TextTask

MECHANISMS = ("gaussian", "laplace")
Combine = Literal["mean", "sum"]
COMBINE: tuple[Combine, ...] = ("mean", "sum")


def make_plan(mechanism: str, directions: int, noise_multiplier: float = 1.0) -> PrivacyPlan:
    return PrivacyPlan.with_noise(
        mechanism=mechanism,
        delta=0.0 if mechanism == "laplace" else 1e-5,
        adjacency="add-or-remove-one",
        unit="user_id",
        combine="mean",
        population=50,
        sampling_probability=0.25,
        steps=3,
        directions=directions,
        clip_norm=1.5,
        noise_multiplier=noise_multiplier,
    )


def total(
    plan: PrivacyPlan, scalars: np.ndarray, unit_of_row: np.ndarray, combine: Combine
) -> tuple[int, ...]:
    """What one boundary releases, without noise."""
    plan = dataclasses.replace(plan, combine=combine)
    return Boundary(plan, add_noise=list).release(scalars, unit_of_row)


def sum_of_partial_sums(
    plan: PrivacyPlan,
    scalars: np.ndarray,
    unit_of_row: np.ndarray,
    combine: Combine,
    worker_of_unit: dict[int, int],
    threads: int = 1,
) -> tuple[int, ...]:
    """Each worker bounds its own units and adds them up; what travels are integers."""
    workers = sorted(set(worker_of_unit.values()))
    worker_of_row = np.array([worker_of_unit[unit] for unit in unit_of_row.tolist()], dtype=int)

    def partial_sum(worker: int) -> list[int]:
        mine = worker_of_row == worker
        combined = boundaries.combine_rows(scalars[mine], unit_of_row[mine], combine)
        return boundaries.exact_sum(boundaries.clip_to_grid(combined, plan))

    with ThreadPoolExecutor(threads) as pool:
        partial = list(pool.map(partial_sum, workers))
    return tuple(map(sum, zip(*partial, strict=True)))


EXTREMES = st.sampled_from(
    [0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 2.2e-308, 1.7e308, -1.7e308, 1e154, 1e-9]
)
NUMBERS = st.one_of(st.floats(-3, 3), st.floats(), EXTREMES)

#: NumPy adds up to 8 numbers one by one, up to 128 in eight lanes, and more in halves.
WIDTHS = st.sampled_from([1, 2, 3, 7, 8, 9, 64, 127, 128, 129, 300])


@st.composite
def units_of_rows(draw) -> list[np.ndarray]:
    """Some units with one to four rows each, of one width."""
    width = draw(WIDTHS)
    rows = st.integers(1, 4)
    seed = draw(st.integers(0, 2**32 - 1))
    odd = draw(st.lists(NUMBERS, min_size=1, max_size=12))
    generator = np.random.default_rng(seed)
    units = []
    for count in draw(st.lists(rows, min_size=1, max_size=8)):
        values = generator.standard_cauchy((count, width)) * 10.0 ** generator.integers(-4, 3)
        places = generator.integers(0, values.size, size=generator.integers(0, 4))
        values.ravel()[places] = generator.choice(odd, size=len(places))
        units.append(values)
    return units


def in_order_of(units: list[np.ndarray], turns: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Scalars and units where unit `turns[i]` has the next row, in its own order."""
    remaining = [list(rows) for rows in units]
    scalars = np.array([remaining[unit].pop(0) for unit in turns])
    return scalars, np.array(turns)


def check_order(units: list[np.ndarray], plan: PrivacyPlan, combine: Combine, draw) -> None:
    """One unit after the other, and all alternating; in C's memory layout and in others."""
    turns = [unit for unit, rows in enumerate(units) for _ in rows]
    expected = total(plan, *in_order_of(units, turns), combine)
    scalars, unit_of_row = in_order_of(units, draw(st.permutations(turns)))
    assert total(plan, scalars, unit_of_row, combine) == expected, "order counts"
    for layout in (np.asfortranarray(scalars), np.repeat(scalars, 2, axis=1)[:, ::2]):
        assert total(plan, layout, unit_of_row, combine) == expected, "memory layout counts"
    renamed = 1_000 - 7 * unit_of_row
    assert total(plan, scalars, renamed, combine) == expected, "names of units count"


def check_workers(units: list[np.ndarray], plan: PrivacyPlan, combine: Combine, draw) -> None:
    """Up to as many workers as units, on one to four threads."""
    turns = [unit for unit, rows in enumerate(units) for _ in rows]
    scalars, unit_of_row = in_order_of(units, turns)
    expected = total(plan, scalars, unit_of_row, combine)
    workers = draw(st.lists(st.integers(0, 7), min_size=len(units), max_size=len(units)))
    for threads in (1, 2, 4):
        shared = sum_of_partial_sums(
            plan, scalars, unit_of_row, combine, dict(enumerate(workers)), threads
        )
        assert shared == expected, "the number of workers counts"


def check_alone(units: list[np.ndarray], plan: PrivacyPlan, combine: Combine, draw) -> None:
    """A unit adds the same integers in any company, so micro-batches cannot count."""
    turns = [unit for unit, rows in enumerate(units) for _ in rows]
    combined = boundaries.combine_rows(*in_order_of(units, turns), combine)
    together = boundaries.clip_to_grid(combined, plan)
    for vector, rows in zip(together, units, strict=True):
        alone = total(plan, rows, np.zeros(len(rows), dtype=int), combine)
        assert tuple(vector.tolist()) == alone, "company counts"
        assert plan.admits(alone)


CHECKS = [check_order, check_workers, check_alone]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("combine", COMBINE)
@pytest.mark.parametrize("mechanism", MECHANISMS)
@settings(deadline=None, max_examples=60)
@given(units=units_of_rows(), data=st.data())
def test_the_sum_is_the_same_integers(check, combine, mechanism, units, data):
    plan = make_plan(mechanism, units[0].shape[1])
    check(units, plan, combine, data.draw)


def add_as_floats(bounded: np.ndarray) -> list[int]:
    """In float64, which holds no integers beyond 2^53."""
    return [int(value) for value in bounded.astype(np.float64).sum(axis=0)]


def clip_by_the_largest(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    """One factor for all units, so that the longest fits."""
    finite = np.nan_to_num(per_unit, posinf=0.0, neginf=0.0)
    factor = plan.clip_norm / max(float(plan.norm(finite).max(initial=0.0)), plan.clip_norm)
    return np.trunc(finite * factor / plan.grid).astype(np.int64)


@pytest.mark.parametrize(
    ("name", "fault"), [("exact_sum", add_as_floats), ("clip_to_grid", clip_by_the_largest)]
)
def test_the_check_flags(name, fault, monkeypatch):
    plan = make_plan("gaussian", 1, noise_multiplier=2.0**-20)
    # Three units of 2^52 + 1 add up to an odd number above 2^53; the last unit is far too long.
    units = [np.full((1, 1), value) for value in [(2**52 + 1) * plan.grid] * 3 + [1e3]]
    units = units[:3] if fault is add_as_floats else units
    monkeypatch.setattr(boundaries, name, fault)

    def first_to_one_worker(_):
        return [0, *[1] * (len(units) - 1)]

    with pytest.raises(AssertionError, match="workers counts"):
        check_workers(units, plan, "mean", first_to_one_worker)


def test_a_long_vector_is_shortened_and_not_dropped():
    """Its float64 norm is that of the long coordinate alone, which fills the bound by itself."""
    plan = make_plan("gaussian", 2)
    long = np.array([[1.0, 1.1 / plan.sensitivity]]) * 1e3
    (kept,) = boundaries.clip_to_grid(long, plan)
    assert kept[0] >= plan.sensitivity - 1


UNITS = 60
BATCHES = [[3, 17, 40], list(range(UNITS)), [], list(range(1, UNITS, 2))]


def released(
    encoder: str, reviews: str, folder: Path, tune: str, order: np.ndarray
) -> dict[int, tuple[int, ...]]:
    """What a run releases, noise left out, of the same examples in another order of the data."""
    config = make_config(encoder, reviews, folder, tune=tune, directions=2)
    data = read_data(config)
    moved = LabelledText([data.texts[i] for i in order], data.labels[order], np.arange(UNITS))
    place_of = {example: place for place, example in enumerate(order.tolist())}
    batches = [[place_of[example] for example in batch] for batch in BATCHES]
    _, record = train_without_noise(config, batches=batches, data=moved)
    return record.releases


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_rows(encoder: str, reviews: str, folder: Path, tune: str) -> None:
    """As in the file, backwards, and shuffled."""
    as_they_are = np.arange(UNITS)
    shuffled = np.random.default_rng(0).permutation(UNITS)
    expected = released(encoder, reviews, folder / "as they are", tune, as_they_are)
    assert list(map(any, expected.values())) == list(map(bool, BATCHES))
    for name, order in (("backwards", as_they_are[::-1]), ("shuffled", shuffled)):
        again = released(encoder, reviews, folder / name, tune, order)
        assert again == expected, "the order of rows counts"


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("tune", ["head", "last-1"])
def test_the_order_of_rows_does_not_change_a_run(tune, threads, encoder_folder, reviews, tmp_path):
    with torch_threads(threads):
        check_rows(encoder_folder, reviews, tmp_path, tune)


def test_the_check_flags_scores_relative_to_the_first_row(
    encoder_folder, reviews, tmp_path, monkeypatch
):
    losses = TextTask.losses

    def relative(self, inputs):
        values = losses(self, inputs)
        return values + 1e-3 * values[0]

    monkeypatch.setattr(TextTask, "losses", relative)
    with pytest.raises(AssertionError, match="order of rows counts"):
        check_rows(encoder_folder, reviews, tmp_path, "last-1")
