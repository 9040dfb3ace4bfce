"""Mistakes 3 and 8: division by the actual batch size, and K numbers accounted as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from insider import (
    Insider,
    flagged,
    make_config,
    new_session,
    train_without_noise,
    watch,
)

from hushtune.privacy import boundary as boundaries
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.plan import PrivacyPlan
from hushtune.zo.update import Update

UNITS = 60
BATCHES = [[3], [0, 1, 2], list(range(UNITS)), list(range(0, UNITS, 2))]


def check_divisor(seen: Insider, encoder: str, data: str, folder: Path) -> None:
    """A batch releases the sum of what its units release alone, whatever its size.

    And the parameters follow from the ledger, in which the size of a batch does not appear.
    """
    config = make_config(encoder, data, folder / "run", clip_norm=1e-3)
    session, record = train_without_noise(config, batches=BATCHES)
    sizes = [len(units) for units in seen.units]
    assert sizes == [len(batch) for batch in BATCHES]
    boundary = Boundary(session.plan, add_noise=list)
    steps = list(zip(seen.scalars, seen.units, record.releases.values(), strict=True))
    for scalars, units, released in steps:
        rows = range(len(units))
        alone = [boundary.release(scalars[[row]], units[[row]]) for row in rows]
        assert tuple(map(sum, zip(*alone, strict=True))) == released, (
            "a unit's share depends on size"
        )

    again = new_session(config, units=UNITS)
    update = again.update()
    for charge, released in record.releases.items():
        update.apply(charge, released)
    for name, parameter in session.parameters.items():
        assert torch.equal(parameter, again.parameters[name]), "an update depends on size"


def check_directions(encoder: str, data: str, folder: Path, mechanism: str) -> None:
    """One unit alone, at full length: all its K integers together stay within what is accounted."""
    config = make_config(
        encoder, data, folder / "run", directions=8, clip_norm=1e-3, mechanism=mechanism
    )
    session, record = train_without_noise(config, batches=[[0], [1], [2], [3]])
    assert record.charges == len(record.releases) == session.plan.steps
    for values in record.releases.values():
        assert len(values) == session.plan.directions == 8
        if mechanism == "gaussian":
            within = sum(value**2 for value in values) <= session.plan.sensitivity**2
        else:
            within = sum(map(abs, values)) <= session.plan.sensitivity
        assert within, "a unit's vector is longer than accounted"


def test_sums_are_divided_by_a_constant(encoder_folder, reviews, tmp_path, monkeypatch):
    check_divisor(watch(monkeypatch), encoder_folder, reviews, tmp_path)


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_all_directions_of_a_step_share_one_clip(mechanism, encoder_folder, reviews, tmp_path):
    check_directions(encoder_folder, reviews, tmp_path, mechanism)


def test_the_check_flags_a_mean_over_the_batch(encoder_folder, reviews, tmp_path, monkeypatch):
    def mean(bounded: np.ndarray) -> list[int]:
        return [total // len(bounded) for total in bounded.sum(axis=0).tolist()]

    monkeypatch.setattr(boundaries, "exact_sum", mean)
    with flagged("a unit's share depends on size"):
        check_divisor(watch(monkeypatch), encoder_folder, reviews, tmp_path)


def test_the_check_flags_a_clip_that_is_shared_by_the_batch(
    encoder_folder, reviews, tmp_path, monkeypatch
):
    clip = boundaries.clip_to_grid

    def clip_the_mean(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
        return clip(per_unit.mean(axis=0, keepdims=True), plan)

    monkeypatch.setattr(boundaries, "clip_to_grid", clip_the_mean)
    with flagged("a unit's share depends on size"):
        check_divisor(watch(monkeypatch), encoder_folder, reviews, tmp_path)


def test_the_check_flags_an_update_by_the_actual_size(
    encoder_folder, reviews, tmp_path, monkeypatch
):
    seen = watch(monkeypatch)
    apply = Update.apply

    def apply_mean(self: Update, charge: int, released) -> None:
        apply(self, charge, [round(12 * value / len(seen.units[-1])) for value in released])

    monkeypatch.setattr(Update, "apply", apply_mean)
    with flagged("an update depends on size"):
        check_divisor(seen, encoder_folder, reviews, tmp_path)


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_the_check_flags_a_clip_for_each_direction(
    mechanism, encoder_folder, reviews, tmp_path, monkeypatch
):
    clip = boundaries.clip_to_grid

    def clip_each(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
        return np.hstack([clip(column[:, None], plan) for column in per_unit.T])

    monkeypatch.setattr(boundaries, "clip_to_grid", clip_each)
    with flagged("longer than accounted"):
        check_directions(encoder_folder, reviews, tmp_path, mechanism)
