"""The whole pipeline with canaries: the real code passes, faulty code is caught, nothing leaks.

Checks of the real code run with so much confidence that chance fails them once in 10^5 times.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canary_game import make_config, new_session, save_bag_encoder, without_privacy

from hushtune import session as sessions
from hushtune.audit import guessing, training
from hushtune.audit.canaries import make_canaries, toss
from hushtune.audit.pipeline import PipelineAudit, audit_pipeline
from hushtune.audit.training import AuditError, train_on_canaries
from hushtune.privacy import boundary
from hushtune.privacy.accounting.search import PrivateSearch
from hushtune.privacy.accounting.stopping import Poisson
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.sampling import PoissonSampler
from hushtune.tasks.data import read_labelled_text
from hushtune.tasks.metrics import evaluate

SURE = 1 - 1e-5


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_bag_encoder(tmp_path_factory.mktemp("bag"))


def run_audit(encoder: str, *, canaries: int = 200, confidence: float = SURE, **settings: Any):
    return audit_pipeline(
        new_session(encoder, **settings), canaries=canaries, steps=None, confidence=confidence
    )


def right(audit: PipelineAudit, attack: str) -> int:
    """Right guesses of an attack that guesses every coin."""
    (found,) = [
        each.correct
        for each in audit.guesses
        if each.attack == attack and each.guesses == audit.canaries
    ]
    return found


def test_the_real_code_passes(encoder: str):
    audit = run_audit(encoder)
    assert audit.passed
    assert audit.epsilon_lower_bound < audit.epsilon_claimed <= 2.0
    assert (audit.noise_level, audit.steps, audit.canaries) == (1.0, 60, 200)
    assert audit.sampling_probability == pytest.approx(0.1, rel=1e-6)
    assert ("the model follows from the ledger", True) in [found[:2] for found in audit.findings]


def no_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(boundary, "exact_noise", lambda plan: list)


def no_clip(patch: pytest.MonkeyPatch) -> None:
    def unclipped(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
        return np.trunc(per_unit / plan.grid).astype(np.int64)

    patch.setattr(boundary, "clip_to_grid", unclipped)


def everybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PoissonSampler, "sample", lambda self: np.arange(self._units))


@pytest.mark.parametrize(
    ("fault", "settings"),
    [
        (no_noise, {"steps": 120, "canaries": 400}),
        # The slopes of a wrong label are many times this clip.
        (no_clip, {"steps": 120, "clip_norm": 0.02}),
        (everybody, {"steps": 100, "batch": 10.0}),
    ],
    ids=["no noise", "no clip", "everybody in every step"],
)
def test_faulty_code_is_caught(
    encoder: str, monkeypatch: pytest.MonkeyPatch, fault: Callable, settings: dict
):
    assert run_audit(encoder, **settings).passed
    fault(monkeypatch)
    audit = run_audit(encoder, confidence=0.95, **settings)
    assert not audit.passed
    assert audit.epsilon_lower_bound > audit.epsilon_claimed
    assert audit.epsilon_claimed == pytest.approx(2.0, rel=0.01)


def test_what_the_ledger_attack_sees_is_what_was_done(encoder: str, monkeypatch):
    with monkeypatch.context() as patch:
        no_noise(patch)
        assert run_audit(encoder).noise_level < 0.1
    with monkeypatch.context() as patch:
        everybody(patch)
        assert run_audit(encoder, batch=10.0).sampling_probability == 1.0


def test_the_ledger_tells_more_than_the_model(encoder: str):
    audits = [run_audit(encoder, epsilon=20.0) for _ in range(3)]
    ledger, model = (
        np.mean([right(audit, attack) for audit in audits]) for attack in ("ledger", "model")
    )
    assert ledger >= model
    assert ledger > 120


def test_replace_one_is_audited_with_coins_that_replace(encoder: str, tmp_path: Path):
    session = new_session(encoder, adjacency="replace-one", epsilon=8.0)
    made = make_canaries(session, 40)
    coins = toss(40)
    made.write(tmp_path / "data.jsonl", coins, session.config)
    config, path = session.config, str(tmp_path / "data.jsonl")
    data = read_labelled_text(path, config.data, config.task, with_units=True)
    assert data.units == 40
    assert data.labels.tolist() == np.where(coins, made.wrong, made.right).tolist()
    assert not np.any(made.wrong == made.right)
    audit = audit_pipeline(session, canaries=200, steps=None, confidence=SURE)
    assert audit.adjacency == "replace-one"
    assert audit.passed


def test_a_canary_is_a_user_where_users_are_protected(encoder: str, tmp_path: Path):
    session = new_session(encoder, unit="user_id")
    coins = np.arange(50) % 3 == 0
    made = make_canaries(session, 50)
    made.write(tmp_path / "data.jsonl", coins, session.config)
    config, path = session.config, str(tmp_path / "data.jsonl")
    data = read_labelled_text(path, config.data, config.task, with_units=True)
    assert data.units == len(data.texts) == coins.sum()
    assert data.texts == [text for text, coin in zip(made.texts, coins, strict=True) if coin]
    record = train_on_canaries(session, made, coins, steps=3).record
    assert record.header["plan"]["unit"] == "user_id"


def test_canaries_are_different_and_wrong(encoder: str):
    session = new_session(encoder)
    made = make_canaries(session, 100)
    assert len(set(made.texts)) == 100
    assert evaluate(session.task(made.rows())) == {"accuracy": 0.0}


def test_coins_are_fair_and_have_no_seed():
    tossed = []
    for _ in range(2):
        np.random.seed(0)
        tossed.append(toss(4000))
    assert (tossed[0] != tossed[1]).any()
    # Outside once in a million times.
    assert abs(tossed[0].sum() - 2000) < 160


def test_fewer_steps_are_compared_with_what_they_cost(encoder: str):
    session = new_session(encoder)
    audit = audit_pipeline(session, canaries=50, steps=7, confidence=SURE)
    assert audit.epsilon_claimed == session.plan.epsilon(7) < session.plan.epsilon()
    assert audit.steps == 7


def test_what_ran_is_the_audited_plan(encoder: str, monkeypatch: pytest.MonkeyPatch):
    session = new_session(encoder)
    made = make_canaries(session, 30)
    run = train_on_canaries(session, made, toss(30), steps=60)
    for key in ("plan", "settings", "shapes", "base_sha256", "public_seed", "private"):
        assert run.record.header[key] == session.header[key]

    class Recalibrated(Ledger):
        def __init__(self, path: Path, header: dict) -> None:
            plan = header["plan"] | {"noise_scale": header["plan"]["noise_scale"] + 1}
            super().__init__(path, header | {"plan": plan})

    monkeypatch.setattr(training, "Ledger", Recalibrated)
    with pytest.raises(AuditError, match="another plan than the run"):
        train_on_canaries(session, made, toss(30), steps=60)


def test_memorisation_without_privacy_shows(encoder: str):
    config = without_privacy(make_config(encoder, "nowhere.jsonl", Path("nowhere"), steps=120))
    session = sessions.begin(config, units=1000)
    audit = audit_pipeline(session, canaries=400, steps=None, confidence=0.95)
    assert audit.epsilon_claimed is None
    assert audit.epsilon_lower_bound > 2
    assert audit.passed


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_nothing_is_left_behind(encoder: str, temporary: Path):
    session = new_session(encoder, steps=5)
    seen = []

    def look(event: str) -> None:
        seen.append((event, list(temporary.iterdir())))

    audit_pipeline(session, canaries=30, steps=None, confidence=0.95, tell=look)
    assert [folders for _, folders in seen] == [[], []]
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_behind_by_an_interruption(
    encoder: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
):
    session = new_session(encoder, steps=5)
    held = []

    def interrupted(self: PoissonSampler) -> np.ndarray:
        (folder,) = temporary.iterdir()
        held.append((folder.stat().st_mode & 0o777, (folder / "canaries.jsonl").exists()))
        raise KeyboardInterrupt

    monkeypatch.setattr(PoissonSampler, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        audit_pipeline(session, canaries=30, steps=None, confidence=0.95)
    assert held == [(0o700, True)]
    assert os.listdir(temporary) == []


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"steps": 0}, "--steps: 0 is not accepted; it must be from 1 to 5"),
        ({"steps": 6}, "--steps: 6 is not accepted; it must be from 1 to 5"),
        ({"canaries": 19}, "--canaries: 19 is too few; at least 20"),
    ],
)
def test_values_out_of_range_are_refused(encoder: str, values: dict, complaint: str):
    session = new_session(encoder, steps=5)
    with pytest.raises(AuditError, match=complaint):
        audit_pipeline(session, **({"canaries": 30, "steps": None, "confidence": 0.95} | values))


def test_guesses_do_not_look_at_coins(encoder: str):
    claim = guessing.Claim.of(new_session(encoder), 60)
    scores, coins = np.arange(100.0), np.arange(100) >= 50
    for share, expected in zip(guessing.SHARES, (5, 10, 40, 100), strict=True):
        found = guessing.judge("ledger", scores, coins, share, claim, 0.01)
        assert (found.guesses, found.correct) == (expected, expected)
        found = guessing.judge("ledger", scores, ~coins, share, claim, 0.01)
        assert (found.guesses, found.correct) == (expected, 0)


def test_a_run_of_a_search_is_held_to_its_own_steps_not_to_those_of_all_runs(encoder: str):
    session = new_session(encoder)
    own = guessing.Claim.of(session, 20)
    plan = session.plan
    assert isinstance(plan, PrivacyPlan)
    search = PrivateSearch(Poisson(5.0), ((plan.phase,),))
    session.plan = dataclasses.replace(plan, search=search)
    assert session.plan.epsilon(20) > 1.5 * own.epsilon
    assert guessing.Claim.of(session, 20).epsilon == own.epsilon


def test_a_finding_fails_where_a_bound_exceeds_the_claim(encoder: str):
    claim = guessing.Claim.of(new_session(encoder), 60)
    all_right = guessing.judge(
        "ledger", np.arange(400.0), np.arange(400) >= 200, (0.5, 0.5), claim, 0.01
    )
    model = dataclasses.replace(
        all_right, attack="model", epsilon_lower_bound=0.0, probability_if_claimed=0.5
    )
    found = guessing.findings_of([all_right, model], claim)
    assert [passed for _, passed, _ in found] == [False, False, True, True]
