"""A text that a model cannot read: its owner answers as ever, and nothing else changes by a bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from local import LocalClients, Told, configuration

from hushtune import opening
from hushtune.config import Config
from hushtune.federated.server import federate
from hushtune.federated.usable import partition, slopes_of_usable
from hushtune.privacy import ledger as ledgers
from hushtune.tasks.data import read_labelled_text
from hushtune.tasks.readouts import base
from hushtune.tasks.readouts.descriptions import DescriptionsReadOut

BAD = 3
KINDS = {
    "label vectors": ("head", "dp-aggzo"),
    "adapters": ("lora", "dp-aggzo"),
    "gradients": ("lora", "dr-encoder"),
}


@pytest.fixture(params=KINDS)
def config(request, encoder_folder, reviews, tmp_path: Path) -> Config:
    tune, method = KINDS[request.param]
    config = configuration(encoder_folder, reviews, tmp_path)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, tune=tune),
        method=dataclasses.replace(
            config.method, name=method, directions=4 if method == "dp-aggzo" else "auto"
        ),
        privacy=dataclasses.replace(config.privacy, mechanism="gaussian"),
    )


@pytest.fixture
def data(config, reviews):
    return read_labelled_text(reviews, config.data, config.task, with_units=True)


@pytest.fixture
def unreadable(data, monkeypatch):
    """Makes a text one that cannot be encoded."""
    encode = DescriptionsReadOut.encode

    def encoded(self, text):
        if text == data.texts[BAD]:
            raise ValueError(f"cannot be said: {text}")
        return encode(self, text)

    monkeypatch.setattr(DescriptionsReadOut, "encode", encoded)


def test_units_that_can_be_read_have_the_same_bits_beside_one_that_cannot(config, data, request):
    session = opening.begin(config, units=data.units)
    update = session.update()
    units = np.array([0, BAD, 5, 17, 59])
    values, of_row = session.slopes(data, update)(units, 2)
    request.getfixturevalue("unreadable")
    failures: list[Exception] = []
    found, found_of_row = slopes_of_usable(session, data, update, failed=failures.append)(units, 2)
    assert found_of_row.tolist() == [0, 5, 17, 59]
    assert np.array_equal(found, values[of_row != BAD])
    assert len(failures) == 2  # with the others, and alone
    assert f"row {BAD + 1} of the data counts as zeros" in str(failures[1])
    assert slopes_of_usable(session, data, update, failed=failures.append)(
        np.array([BAD]), 2
    )[0].shape == (0, values.shape[1])  # fmt: skip


def test_a_text_longer_than_the_shapes_that_a_server_names_is_one(config, data):
    session = opening.begin(config, units=data.units)
    if config.method.name == "dr-encoder":
        pytest.skip("gradients have no shapes")
    lengths = [base.example_length(session.loaded.readout.encode(text)) for text in data.texts]
    session.shapes[:] = [
        dataclasses.replace(session.shapes[0], length=max(lengths) - 1, rows=1, directions=1)
    ]
    failures: list[Exception] = []
    slopes = slopes_of_usable(session, data, session.update(), failed=failures.append)
    longest = np.flatnonzero(np.array(lengths) == max(lengths))
    assert len(failures) == 1 + len(longest)
    _, of_row = slopes(np.arange(data.units), 0)
    assert of_row.tolist() == np.delete(np.arange(data.units), longest).tolist()


@pytest.mark.parametrize("level", ["example", "client"])
def test_its_owner_answers_every_round(config, level, unreadable, reviews, tmp_path, capsys):
    config = dataclasses.replace(
        config, federated=dataclasses.replace(config.federated, level=level)
    )
    told = Told()
    # Public evaluation data that can be read.
    public = tmp_path / "public.jsonl"
    rows = Path(reviews).read_text().splitlines(keepends=True)
    public.write_text("".join(rows[:BAD] + rows[BAD + 1 :]))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, eval=str(public)))
    federate(config, LocalClients(reviews, config, tmp_path), told)
    assert told.faults == []
    assert len(ledgers.read(Path(config.output) / "ledger.jsonl").releases) == 4
    assert "preparing the texts failed" in capsys.readouterr().err


def test_a_client_without_a_readable_text_answers_too(config, data, monkeypatch):
    session = opening.begin(config, units=data.units)
    encode = DescriptionsReadOut.encode

    def nothing(self, text):
        if text in data.texts:
            raise ValueError
        return encode(self, text)

    monkeypatch.setattr(DescriptionsReadOut, "encode", nothing)
    some = partition(data, np.arange(3))
    slopes = slopes_of_usable(session, some, session.update(), failed=lambda _: None)
    values, of_row = slopes(np.arange(3), 0)
    assert values.shape == (0, session.plan.directions)
    assert of_row.shape == (0,)
