"""A client's integers as bytes: equally long whatever they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushtune.privacy import PrivacyPlan
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.rounds import Rounds, UnusableShare, packed_share, unpacked_share

PLAN = PrivacyPlan.for_epsilon(
    epsilon=2.0,
    delta=1e-5,
    mechanism="gaussian",
    adjacency="add-or-remove-one",
    unit="example",
    combine="mean",
    population=100,
    expected_units=10.0,
    steps=10,
    directions=3,
    clip_norm=1.0,
)


def holds(plan: PrivacyPlan) -> int:
    """The largest number that a plan's share has room for."""
    return 2 ** (8 * plan.bytes_a_number - 1) - 1


@given(st.lists(st.integers(-holds(PLAN), holds(PLAN)), min_size=3, max_size=3))
def test_what_is_unpacked_is_what_was_packed(values: list[int]):
    sent = packed_share(values, PLAN)
    assert len(sent) == 3 * PLAN.bytes_a_number
    assert unpacked_share(sent, PLAN) == values


@pytest.mark.parametrize("population", [1, 100, 10**6])
@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_there_is_room_for_every_sum_and_its_noise(population, mechanism):
    plan = dataclasses.replace(PLAN, population=population, mechanism=mechanism)
    assert population * plan.sensitivity + 64 * plan.noise_scale <= holds(plan)
    # And not for much more: a byte less would be too few.
    assert population * plan.sensitivity + 64 * plan.noise_scale > holds(plan) >> 8


def test_noise_beyond_all_bounds_makes_no_longer_number():
    assert unpacked_share(packed_share([2**63 - 1, -(2**63), 0], PLAN), PLAN) == [
        holds(PLAN),
        -holds(PLAN),
        0,
    ]


@pytest.mark.parametrize("sent", [None, 5, "00000", [1, 2, 3], b"1", b"1" * 16])
def test_anything_else_is_not_a_share(sent):
    with pytest.raises(UnusableShare, match="did not send integers"):
        unpacked_share(sent, PLAN)


@pytest.mark.parametrize("level", ["example", "client"])
def test_a_server_sees_a_vector_that_is_longer_than_its_units_clips(level, tmp_path):
    """A client that is the unit has one clip, however many rows it says it has."""
    federated = {
        "clients": 10,
        "level": level,
        "trust": "server",
        "examples": 8.0,
        "least_replies": 1,
    }
    config = {"federated": federated}
    header = {"private": True, "steps": PLAN.steps, "plan": PLAN.to_json(), "config": config}
    as_long_as_the_clip = Boundary(PLAN).bounded_sum(np.array([[1.0, 0.0, 0.0]]), np.array([0]))
    sent = [packed_share([k * number for number in as_long_as_the_clip], PLAN) for k in (1, 2, 3)]
    with Ledger(tmp_path / "ledger.jsonl", header) as ledger:
        rounds = Rounds(ledger)
        most = 2 if level == "example" else 1
        for k in range(most):
            assert rounds.share(sent[k], units=2) == unpacked_share(sent[k], PLAN)
        with pytest.raises(UnusableShare, match="longer than its units' clips"):
            rounds.share(sent[most], units=2)
