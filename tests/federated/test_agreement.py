"""What a client does not give away to a server that asks for more than was agreed to."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from local import LocalClients, Told, configuration

from hushtune.config import Config, ConfigError
from hushtune.config.federated_checks import check_federated
from hushtune.federated.client import AtWork, Client, Owner
from hushtune.federated.first_order.gradients import contributions
from hushtune.federated.messages import DESCRIBE, ROUND, packed
from hushtune.federated.server import federate
from hushtune.models.load import hash_tensors
from hushtune.privacy import PrivacyPlan
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.rounds import ClientShare, RoundTerms
from hushtune.tasks.data import LabelledText, read_labelled_text

DIAGNOSES = {"text": "a b c", "label": "positive", "diagnosis": "flu", "user": "u"}


@pytest.fixture
def config(encoder_folder, reviews, tmp_path: Path) -> Config:
    return configuration(encoder_folder, reviews, tmp_path)


@pytest.fixture
def owner_of(tmp_path: Path):
    """Makes an owner of sixty rows, of two users, one of which has another diagnosis."""
    path = tmp_path / "rows.jsonl"
    rows = [DIAGNOSES | {"user": f"u{row % 2}"} for row in range(60)]
    rows[7] = rows[7] | {"diagnosis": "hiv"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**of_owner: Any) -> Owner:
        return Owner(
            name="owner",
            read=lambda asked: read_labelled_text(
                str(path), asked.data, asked.task, with_units=True
            ),
            folder=tmp_path / "owner",
            **of_owner,
        )

    return make


def changed(config: Config, **data: Any) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))


def described(client: Client, config: Config) -> dict[str, Any]:
    return client.answer(DESCRIBE, {"config": json.dumps(config.to_json())})


def test_how_data_is_read_can_be_asked_once(owner_of, config):
    """Answers to other questions would tell which diagnoses there are."""
    client = Client(owner_of(), AtWork())
    assert described(client, config) == {"units": 60}
    assert described(client, config) == {"units": 60}
    for asked, words in (
        (changed(config, unit="diagnosis"), "data.unit"),
        (changed(config, label="diagnosis"), "data.label"),
        (
            dataclasses.replace(
                config, task=dataclasses.replace(config.task, labels={"flu": "a", "hiv": "b"})
            ),
            "task.labels",
        ),
    ):
        # In another process too.
        for other in (client, Client(owner_of(), AtWork())):
            answer = described(other, asked)
            assert answer["refused"].startswith("agreed to other settings: ")
            assert words in answer["refused"]
    # What has nothing to do with reading may change.
    other_model = dataclasses.replace(config.model, tune="bias")
    assert described(client, dataclasses.replace(config, model=other_model)) == {"units": 60}


def test_an_owner_who_said_what_is_agreed_to_answers_nothing_else(owner_of, config):
    client = Client(owner_of(agreed=changed(config, unit="user")), AtWork())
    assert "agreed to other settings: data.unit" in described(client, config)["refused"]
    assert described(client, changed(config, unit="user")) == {"units": 2}


def test_an_owner_who_empties_the_folder_agrees_anew(owner_of, config, tmp_path):
    client = Client(owner_of(), AtWork())
    assert described(client, config) == {"units": 60}
    shutil.rmtree(tmp_path / "owner")
    assert described(client, changed(config, unit="user")) == {"units": 2}


def test_what_is_wrong_with_the_data_stays_there(owner_of, config, capsys):
    client = Client(owner_of(), AtWork())
    asked = changed(config, label="diagnosis")
    assert described(client, asked) == {"refused": "has a problem; its own terminal says which"}
    assert "flu" in capsys.readouterr().err


@pytest.fixture
def told(config, reviews, tmp_path):
    """Makes lines of a ledger that charge the first rounds, as a server sends them."""

    def make(charges: int) -> tuple[LocalClients, bytes]:
        clients = LocalClients(reviews, config, tmp_path / "elsewhere")
        federate(config, clients, Told())
        lines = (Path(config.output) / "ledger.jsonl").read_bytes().splitlines(keepends=True)
        last = [at for at, line in enumerate(lines) if b'"charge"' in line][charges - 1]
        return clients, packed(b"".join(lines[: last + 1]))

    return make


def asked(client: Client, lines: bytes) -> dict[str, Any]:
    return client.answer(ROUND, {"first": 0, "lines": lines})


def test_a_round_is_answered_once_though_the_copy_is_lost(owner_of, told, tmp_path):
    _, lines = told(2)
    client = Client(owner_of(), AtWork())
    assert "values" in asked(client, lines)
    (tmp_path / "owner" / "ledger.jsonl").unlink()
    for again in (client, Client(owner_of(), AtWork())):
        assert asked(again, lines)["refused"] == "this round was asked for before."


def test_a_folder_is_of_one_run_though_the_copy_is_lost(owner_of, told, config, tmp_path):
    _, lines = told(1)
    assert "values" in asked(Client(owner_of(), AtWork()), lines)
    (tmp_path / "owner" / "ledger.jsonl").unlink()
    other = tmp_path / "other.jsonl"
    header = ledgers.read(Path(config.output) / "ledger.jsonl").header
    with ledgers.Ledger(other, header | {"seed": 5}) as ledger:
        ledger.charge()
    answer = asked(Client(owner_of(), AtWork()), packed(other.read_bytes()))
    assert answer["refused"] == "has answered another run from this folder."


def test_a_run_that_is_refused_leaves_no_trace(owner_of, told, tmp_path):
    _, lines = told(1)
    assert (
        "its owner allows 0.5" in asked(Client(owner_of(epsilon=0.5), AtWork()), lines)["refused"]
    )
    assert (tmp_path / "owner" / "ledger.jsonl").read_bytes() == b""
    assert "values" in asked(Client(owner_of(epsilon=4.0), AtWork()), lines)


def test_a_ledger_that_asks_for_nothing_does_not_bind_its_owner(owner_of, told, config, tmp_path):
    _, lines = told(1)
    other = tmp_path / "other.jsonl"
    header = ledgers.read(Path(config.output) / "ledger.jsonl").header
    ledgers.Ledger(other, header | {"seed": 5}).close()
    client = Client(owner_of(), AtWork())
    assert "charges no round" in asked(client, packed(other.read_bytes()))["refused"]
    (tmp_path / "owner" / "ledger.jsonl").unlink()
    assert "values" in asked(client, lines)


def test_what_an_owner_calls_things_is_not_told(owner_of, config):
    labels = {"flu": "a", "hiv": "b"}
    task = dataclasses.replace(config.task, labels=labels)
    client = Client(owner_of(agreed=dataclasses.replace(config, task=task)), AtWork())
    assert described(client, config) == {"refused": "agreed to other settings: task.labels."}


def test_how_much_one_client_holds_is_not_told_where_that_is_protected(owner_of, config):
    federated = dataclasses.replace(config.federated, level="client")
    client = Client(owner_of(), AtWork())
    assert described(client, dataclasses.replace(config, federated=federated)) == {"units": 1}


def test_a_server_that_is_not_trusted_is_not_told_how_many_units_there_are(owner_of, config):
    answer = described(Client(owner_of(trusts_server=False), AtWork()), config)
    assert "does not trust the server" in answer["refused"]


def test_names_of_files_are_not_looked_up_where_a_client_is(owner_of, config, tmp_path):
    """A server that may name any two could ask what is where."""
    (tmp_path / "link").symlink_to(tmp_path)
    asked_for = changed(config, train=str(tmp_path / "link"), eval=str(tmp_path))
    assert described(Client(owner_of(), AtWork()), asked_for) == {"units": 60}


def test_a_question_that_comes_late_moves_nothing_twice(owner_of, told, tmp_path):
    """Clients of one process share a model, and their copies may not be equally long."""
    _, lines = told(3)
    _, fewer = told(2)
    work = AtWork()
    ahead = Client(dataclasses.replace(owner_of(), name="ahead", folder=tmp_path / "ahead"), work)
    late = Client(owner_of(), work)
    assert "values" in asked(ahead, lines)
    assert "values" in asked(late, fewer)
    assert work.session is not None
    fresh = AtWork()
    other = Client(dataclasses.replace(owner_of(), folder=tmp_path / "other"), fresh)
    assert "values" in asked(other, fewer)
    assert fresh.session is not None
    assert work.applied == fresh.applied == 1
    one, two = (hash_tensors(each.session.parameters.items()) for each in (work, fresh))
    assert one == two


PLAN = PrivacyPlan.for_epsilon(
    epsilon=2.0,
    delta=1e-5,
    mechanism="gaussian",
    adjacency="add-or-remove-one",
    unit="example",
    combine="mean",
    population=10,
    expected_units=10.0,
    steps=3,
    directions=2,
    clip_norm=1.0,
)


def share(*, by_client: bool = False, trust: str = "server") -> tuple[ClientShare, list[Exception]]:
    failures: list[Exception] = []
    terms = RoundTerms(trust=trust, by_client=by_client, examples=10.0, least_replies=1)
    return ClientShare(PLAN, terms, units=10, failed=failures.append), failures


def slopes(units: np.ndarray, charge: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit 3 cannot be computed."""
    if 3 in units:
        raise MemoryError("text of unit 3")
    return np.column_stack([units / 16, -units / 32]), units


def test_a_unit_that_fails_has_zeros_and_touches_no_other():
    one, failures = share()
    others = np.delete(np.arange(10), 3)
    expected = Boundary(PLAN).bounded_sum(*slopes(others, 0))
    assert one.of_round(slopes, 0) == tuple(expected)
    assert len(failures) == 2  # with the others, and alone


def test_a_client_whose_units_all_fail_answers_as_ever():
    def nothing(units: np.ndarray, charge: int):
        raise MemoryError

    for by_client in (False, True):
        assert share(by_client=by_client)[0].of_round(nothing, 0) == (0, 0)
        assert any(share(by_client=by_client, trust="nobody")[0].of_round(nothing, 0))


def test_a_client_that_is_the_unit_has_its_rows_together_or_not_at_all():
    assert share(by_client=True)[0].of_round(slopes, 0) == (0, 0)


def test_there_is_no_trust_that_leaves_noise_out_but_the_servers():
    for trust in ("secure-aggregation", "", "Server"):
        with pytest.raises(ValueError, match="to be server or nobody"):
            RoundTerms(trust=trust, by_client=False, examples=1.0, least_replies=1)


def test_a_client_without_rows_adds_nothing_whatever_the_codec_makes_of_nothing():
    data = LabelledText(["a"], np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    settings: Any = SimpleNamespace(dimension=3, local_learning_rate=0.1, local_batch=1)

    def encode(update: np.ndarray, charge: int) -> np.ndarray:
        return np.array([0.6, *update[:1]])

    of = contributions(None, data, settings, encode, by_client=True)  # pyright: ignore
    values, unit_of_row = of(np.zeros(0, dtype=np.int64), 0)
    assert values.shape == (0, 2)
    assert len(unit_of_row) == 0


def test_a_column_is_not_taken_for_clients(config):
    with pytest.raises(ConfigError, match="would be taken for clients"):
        check_federated(changed(config, unit="client"))


def test_more_clients_than_were_said_are_not_served(config, reviews, tmp_path):
    more = LocalClients(reviews, config, tmp_path)
    fewer = dataclasses.replace(config, federated=dataclasses.replace(config.federated, clients=2))
    with pytest.raises(ConfigError, match=r"federated.clients: 2 were expected, 3 came\."):
        federate(fewer, more, Told())
    assert not (Path(config.output) / "ledger.jsonl").exists()
