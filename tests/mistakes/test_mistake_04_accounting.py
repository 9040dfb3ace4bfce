"""Mistake 4: n taken from anything but the data, and more steps than were accounted."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
from insider import Insider, Silent, flagged, make_config, train_folder, watch

from hushtune import run as runs
from hushtune import session as sessions
from hushtune.privacy.plan import PrivacyPlan


def check(seen: Insider, encoder: str, data: str, folder: Path) -> None:
    """n, q and the number of releases are those of the data and of what happened."""
    config = make_config(encoder, data, folder / "run", unit="user_id", batch=6.0)
    record = train_folder(config)
    users = {json.loads(line)["user_id"] for line in Path(data).read_text().splitlines()}
    plan = PrivacyPlan.from_json(record.header["plan"])
    assert plan.population == len(users), "n is not the number of units"
    wanted = math.ceil(6.0 / len(users) * 2**32) / 2**32
    assert plan.sampling_probability == wanted, "q is not batch over n"
    assert len(seen.released) == record.charges == plan.steps, "steps were not accounted"
    assert plan.epsilon() <= 4.0, "the noise is that of another plan"
    guarantee = json.loads((folder / "run" / "privacy.json").read_text())
    assert guarantee["epsilon"] == plan.epsilon()
    assert guarantee["steps"] == plan.steps

    runs.train(config, Silent())  # a finished run has nothing left to do
    assert len(seen.released) == plan.steps, "steps were not accounted"


def test_what_is_accounted_is_what_happens(encoder_folder, reviews, tmp_path, monkeypatch):
    check(watch(monkeypatch), encoder_folder, reviews, tmp_path)


def test_the_check_flags_n_from_labels(encoder_folder, reviews, tmp_path, monkeypatch):
    begin = sessions.begin

    def begin_with_shots(config, *, units: int, **options):
        del units
        return begin(config, units=16 * len(config.task.labels), **options)

    monkeypatch.setattr(sessions, "begin", begin_with_shots)
    with flagged("n is not the number of units"):
        check(watch(monkeypatch), encoder_folder, reviews, tmp_path)


def test_the_check_flags_one_step_more(encoder_folder, reviews, tmp_path, monkeypatch):
    train = runs.train_steps

    def one_more(session, data, steps, **options):
        train(session, data, steps, **options)
        steps._boundary.release(np.ones((1, session.plan.directions)), np.zeros(1, dtype=np.int64))

    monkeypatch.setattr(runs, "train_steps", one_more)
    with flagged("steps were not accounted"):
        check(watch(monkeypatch), encoder_folder, reviews, tmp_path)


def test_the_check_flags_noise_for_fewer_steps(encoder_folder, reviews, tmp_path, monkeypatch):
    for_epsilon = PrivacyPlan.for_epsilon

    def for_one_step_less(*, steps: int, **rest) -> PrivacyPlan:
        return dataclasses.replace(for_epsilon(steps=steps - 1, **rest), steps=steps)

    monkeypatch.setattr(PrivacyPlan, "for_epsilon", for_one_step_less)
    with flagged("the noise is that of another plan"):
        check(watch(monkeypatch), encoder_folder, reviews, tmp_path)
