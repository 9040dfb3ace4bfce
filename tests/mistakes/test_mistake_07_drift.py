"""Mistake 7: perturb and restore in place, after which parameters are not where they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from insider import flagged, make_config, new_session, read_data

from hushtune import run as runs
from hushtune.privacy.ledger import Ledger
from hushtune.trainer import train
from hushtune.zo.losses import MovedLosses


def check(encoder: str, data: str, folder: Path) -> None:
    """Training, with its forward passes, ends bit for bit where the releases alone lead."""
    config = make_config(encoder, data, folder, tune="last-1", directions=2)
    private = read_data(config)
    trained = new_session(config, units=private.units)
    with Ledger(folder / runs.LEDGER, trained.header) as ledger:
        train(trained, private, runs.open_steps(ledger, private))
        releases = dict(ledger.releases)
    replayed = new_session(config, units=private.units)
    update = replayed.update()
    for charge, released in releases.items():
        update.apply(charge, released)
    for name, parameter in trained.parameters.items():
        assert torch.equal(parameter, replayed.parameters[name]), f"{name} drifted"
    untouched = new_session(config, units=private.units).parameters
    assert any(not torch.equal(trained.parameters[name], untouched[name]) for name in untouched)


def test_forward_passes_leave_no_trace(encoder_folder, reviews, tmp_path):
    check(encoder_folder, reviews, tmp_path)


def test_the_check_flags_perturbing_in_place(encoder_folder, reviews, tmp_path, monkeypatch):
    def at_in_place(self: MovedLosses, rows, moves, *, charge: int) -> np.ndarray:
        def shift(direction: int, scale: float) -> None:
            for name, parameter in self._parameters.items():
                moved = self._directions.perturbed(
                    name, parameter, charge=charge, direction=direction, scale=scale
                )
                parameter.copy_(moved)

        losses = np.empty((len(rows), len(moves)))
        with torch.no_grad():
            for column, move in enumerate(moves):
                shift(move.direction, move.scale)
                for places, inputs in self._task.micro_batches(rows):
                    losses[places, column] = self._task.losses(inputs)[: len(places)].numpy()
                shift(move.direction, -move.scale)
        return losses

    monkeypatch.setattr(MovedLosses, "at", at_in_place)
    with flagged("drifted"):
        check(encoder_folder, reviews, tmp_path)
