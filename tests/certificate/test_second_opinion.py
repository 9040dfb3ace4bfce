"""ε is found by a second accountant too, and an ε that differs from it is not certified."""

from __future__ import annotations

from pathlib import Path

import pytest

from hushtune.certificate.checks import Examination, Failed, NotApplicable
from hushtune.certificate.second_opinion import check_second_accountant
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.ledger import Record


def examine(**changes) -> Examination:
    plan = PrivacyPlan.with_noise(
        **{
            "mechanism": "gaussian",
            "delta": 1e-5,
            "adjacency": "add-or-remove-one",
            "unit": "example",
            "combine": "mean",
            "population": 5000,
            "sampling_probability": 0.125,
            "steps": 500,
            "directions": 16,
            "clip_norm": 1.0,
            "noise_multiplier": 4.6,
        }
        | changes
    )
    examination = Examination(Path(), None, None, Path())
    examination.found.record = Record(header={"plan": plan.to_json()})
    return examination


PLANS = [
    {},
    {"adjacency": "replace-one"},
    {"sampling_probability": 1.0, "steps": 20},
    {"sampling_probability": 2.0**-7, "steps": 20_000, "noise_multiplier": 2.4},
    {"mechanism": "laplace", "directions": 1, "noise_multiplier": 12.0},
]


@pytest.mark.parametrize("changes", PLANS)
def test_both_accountants_agree(changes):
    assert "finds ε =" in check_second_accountant(examine(**changes))


def test_pure_epsilon_needs_no_accountant():
    with pytest.raises(NotApplicable, match="closed form"):
        check_second_accountant(examine(mechanism="laplace", delta=0.0))


@pytest.mark.parametrize("factor", [0.98, 1.05])
@pytest.mark.parametrize("changes", PLANS[:2])
def test_an_epsilon_of_ones_own_is_not_certified(changes, factor, monkeypatch):
    own = PrivacyPlan.epsilon
    monkeypatch.setattr(PrivacyPlan, "epsilon", lambda plan: factor * own(plan))
    with pytest.raises(Failed, match=r"dp-accounting 0\.6\.0 finds ε = .*, hushtune"):
        check_second_accountant(examine(**changes))
