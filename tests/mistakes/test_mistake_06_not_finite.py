"""Mistake 6: a loss that is NaN or infinite passes the clip and poisons the model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from insider import bytes_that_draw, flagged, make_config, new_session, read_data

from hushtune import run as runs
from hushtune.privacy import boundary as boundaries
from hushtune.privacy.ledger import Ledger
from hushtune.privacy.plan import PrivacyPlan
from hushtune.privacy.steps import PrivateSteps
from hushtune.trainer import train
from hushtune.zo.update import Update

UNITS, POISONED = 60, 7


def train_with(batch: list[int], bad: float, encoder: str, data: str, folder: Path, tune: str):
    """Session and releases of a run over `batch`, on a model that one of its texts breaks.

    Only that text has the word whose embedding is `bad`.
    """
    config = make_config(encoder, data, folder, tune=tune, directions=2)
    texts = [text.replace("actor", "plot") for text in read_data(config).texts]
    texts[POISONED] = f"actor {texts[POISONED]}"
    private = dataclasses.replace(read_data(config), texts=texts)
    session = new_session(config, units=UNITS)
    session.header["private"] = False  # there is no noise
    word = session.loaded.readout.tokenizer.convert_tokens_to_ids("actor")
    encoder_model = session.loaded.model.encoder
    with torch.no_grad():
        encoder_model.get_input_embeddings().weight[word] = bad
    batches = bytes_that_draw(UNITS, [batch] * 4)
    with Ledger(folder / runs.LEDGER, session.header) as ledger:
        steps = PrivateSteps(ledger, units=UNITS, random_bytes=batches, add_noise=list)
        train(session, private, steps)
        return session, ledger.releases


def check(bad: float, tune: str, encoder: str, data: str, folder: Path) -> None:
    """The broken example adds nothing, and all others add what they would without it."""
    everybody = list(range(UNITS))
    others = [unit for unit in everybody if unit != POISONED]
    session, released = train_with(everybody, bad, encoder, data, folder / "with", tune)
    _, expected = train_with(others, bad, encoder, data, folder / "without", tune)
    assert released == expected, "a broken example reached the sum"
    for name, parameter in session.parameters.items():
        assert torch.isfinite(parameter).all(), f"{name} was poisoned"
    assert any(map(any, expected.values()))


@pytest.mark.parametrize(("bad", "tune"), [(math.nan, "head"), (math.inf, "last-1")])
def test_an_example_without_a_finite_loss_adds_nothing(
    bad, tune, encoder_folder, reviews, tmp_path
):
    check(bad, tune, encoder_folder, reviews, tmp_path)


def clip_as_usual(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    """The textbook's clip: x · min(1, C / ‖x‖)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = per_unit * np.minimum(1, plan.clip_norm / plan.norm(per_unit))
        return np.trunc(scaled / plan.grid).astype(np.int64)


def clip_with_large_numbers(per_unit: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    """NaN becomes zero, and infinity a large number, which then fills the whole clip."""
    return clip_as_usual(np.nan_to_num(per_unit, nan=1e300), plan)


@pytest.mark.parametrize("fault", [clip_as_usual, clip_with_large_numbers])
def test_the_check_flags(fault, encoder_folder, reviews, tmp_path, monkeypatch):
    monkeypatch.setattr(boundaries, "clip_to_grid", fault)
    with flagged("reached the sum"):
        check(math.nan, "head", encoder_folder, reviews, tmp_path)


def test_the_check_flags_a_poisoned_parameter(encoder_folder, reviews, tmp_path, monkeypatch):
    """Both runs are poisoned alike, so the sums agree and the parameters tell."""

    def apply_nan(self, charge: int, released) -> None:
        with torch.no_grad():
            for parameter in self._parameters.values():
                parameter += math.nan

    monkeypatch.setattr(Update, "apply", apply_nan)
    with flagged("was poisoned"):
        check(math.nan, "head", encoder_folder, reviews, tmp_path)
