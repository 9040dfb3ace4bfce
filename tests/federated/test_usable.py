"""A text that a model cannot read: its owner answers as ever, and nothing else changes by a bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from local import LocalClients, Told, configuration, panic

from hushtune import opening
from hushtune.config import Config
from hushtune.federated.server import federate
from hushtune.federated.usable import partition, slopes_of_usable
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.rounds import ClientShare, RoundTerms
from hushtune.tasks.data import read_labelled_text
from hushtune.tasks.readouts import base
from hushtune.tasks.readouts.descriptions import DescriptionsReadOut

BAD = 3
TERMS = RoundTerms(trust="server", by_client=False, examples=10.0, least_replies=1)
KINDS = {
    "label vectors": ("head", "dp-aggzo"),
    "adapters": ("lora", "dp-aggzo"),
    "gradients": ("lora", "dr-encoder"),
}


def complain(text: str) -> None:
    raise ValueError(f"cannot be said: {text}")


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
def unreadable(request, data, monkeypatch):
    """Makes a text one that cannot be encoded."""
    encode, fail = DescriptionsReadOut.encode, getattr(request, "param", complain)

    def encoded(self, text):
        if text == data.texts[BAD]:
            fail(text)
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


@pytest.mark.parametrize("unreadable", [complain, panic], indirect=True)
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


@pytest.mark.parametrize("tune", ["last-1", "head"])
def test_finding_it_takes_no_forward_pass_for_each_unit(tune, encoder_folder, reviews, tmp_path):
    """The server sees how long preparing takes, and a client that takes too long is not heard."""
    config = configuration(encoder_folder, reviews, tmp_path)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, tune=tune),
        method=dataclasses.replace(config.method, steps=100),
    )
    data = read_labelled_text(reviews, config.data, config.task, with_units=True)
    session = opening.begin(config, units=data.units)
    encode = session.loaded.readout.encode
    passes = 0

    def counted(*_):
        nonlocal passes
        passes += 1

    def encoded(text):
        if text == data.texts[BAD]:
            panic()
        return encode(text)

    layer = next(each for each in session.loaded.readout.model.modules() if not [*each.children()])
    layer.register_forward_hook(counted)
    session.slopes(data, session.update())
    without = passes
    assert without > 5
    session.loaded.readout.encode = encoded
    session.features.clear()
    slopes_of_usable(session, data, session.update(), failed=lambda _: None)
    assert passes - without <= without


def test_a_text_that_fails_in_a_forward_pass_is_left_out_of_the_rounds_that_have_it(
    encoder_folder, reviews, tmp_path
):
    """As where a tokenizer has more tokens than the model has."""
    config = configuration(encoder_folder, reviews, tmp_path)
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, steps=100))
    data = read_labelled_text(reviews, config.data, config.task, with_units=True)
    session = opening.begin(config, units=data.units)
    units = np.array([0, BAD, 5])
    values, _ = session.slopes(data, session.update())(units, 2)
    session.features.clear()
    readout = session.loaded.readout
    collate, bad = readout.collate, readout.encode(data.texts[BAD])

    def collated(examples, length):
        if bad in examples:
            panic()
        return collate(examples, length)

    readout.collate = collated
    failures: list[Exception] = []
    slopes = slopes_of_usable(session, data, session.update(), failed=failures.append)
    assert len(failures) == 2
    share = ClientShare(session.plan, TERMS, units=data.units, failed=failures.append)
    found, of_row = share._values(slopes, units, 2)
    assert of_row.tolist() == [0, 5]
    assert np.array_equal(found, values[[0, 2]])
    assert len(failures) == 4  # of all, and of the one alone
