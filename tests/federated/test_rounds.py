"""Rounds between a server and clients: what is computed, and what happens when something fails."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local import LocalClients, Told, configuration, panic

from hushtune import opening
from hushtune.federated import client as clients_side
from hushtune.federated import messages
from hushtune.federated.group import InVain, TooFewClients
from hushtune.federated.messages import REFUSED, ROUND, Answer, Refusal, packed, unpacked
from hushtune.federated.server import federate
from hushtune.guarantee import describe_guarantee
from hushtune.models.load import hash_tensors
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.accounting.search import PrivateSearch
from hushtune.privacy.accounting.stopping import Poisson
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.ledger import LedgerError
from hushtune.privacy.plan import PrivacyPlan
from hushtune.run import replay


@pytest.fixture
def run(encoder_folder, reviews, tmp_path):
    """Makes configuration and clients of a run."""

    def make(owner: dict[str, Any] | None = None, **federated: Any):
        config = configuration(encoder_folder, reviews, tmp_path, **federated)
        return config, LocalClients(reviews, config, tmp_path, **(owner or {})), Told()

    return make


class Stopped(Exception):
    """The server ends, for no reason of its own."""


def stop(answer):
    raise Stopped


def record_of(config) -> ledgers.Record:
    return ledgers.read(Path(config.output) / "ledger.jsonl")


def integers(answer: dict[str, Any], directions: int = 4) -> list[int]:
    """Those of an answer, whose numbers are all equally long."""
    sent = answer["values"]
    width = len(sent) // directions
    places = range(0, len(sent), width)
    return [int.from_bytes(sent[at : at + width], "little", signed=True) for at in places]


def numbers_changed(change):
    def changed(answer):
        width = len(answer["values"]) // 4
        values = change(integers(answer))
        sent = b"".join(value.to_bytes(width, "little", signed=True) for value in values)
        return [answer | {"values": sent}]

    return changed


def sends_instead(make):
    return lambda answer: [answer | {"values": make(integers(answer))}]


def largest(values: list[int]) -> list[int]:
    return [2**39 - 1] * len(values)


@pytest.mark.parametrize("trust", ["server", "nobody"])
@pytest.mark.parametrize("level", ["example", "client"])
def test_a_run_ends_like_any_other(run, level, trust, tmp_path):
    config, clients, told = run(level=level, trust=trust)
    summary = federate(config, clients, told)
    assert told.faults == []
    assert summary["clients"] == 3
    assert summary["rounds_skipped"] == 0
    record = record_of(config)
    assert len(record.releases) == record.charges == 4
    guarantee = describe_guarantee(record)
    assert guarantee["unit"] == level
    assert guarantee["population"] == (60 if level == "example" else 3)
    assert guarantee["federated"] == {"clients": 3, "level": level, "trust": trust}
    words = " ".join(guarantee["exclusions"])
    assert ("several clients counts" in words) == (level == "example")
    assert ("without noise" in words) == (trust == "server")
    assert ("against the server too" in words) == (trust == "nobody")
    assert ("SuperLink" in words) == (trust == "server")
    assert ("How many units each client holds" in words) == (level == "example")
    card = (Path(config.output) / "model" / "README.md").read_text()
    assert "by forward passes alone at 3 clients" in card
    assert ("from each client that answered" in card) == (trust == "nobody")
    assert guarantee["epsilon"] == summary["epsilon"] <= 4.0
    assert guarantee["sampling_probability"] < 1 or level == "client"
    replay(Path(config.output) / "ledger.jsonl", model=None, out=tmp_path / "again")
    one, other = (
        (folder / "model" / "label_vectors.safetensors").read_bytes()
        for folder in (Path(config.output), tmp_path / "again")
    )
    assert one == other
    # Nothing is spent on what is complete.
    assert federate(config, clients, told) == summary
    assert record_of(config).charges == 4


def test_clients_have_the_servers_ledger_and_nothing_else(run, tmp_path):
    config, clients, told = run()
    federate(config, clients, told)
    lines = (Path(config.output) / "ledger.jsonl").read_bytes().splitlines()
    for client in range(3):
        copy = (tmp_path / f"client{client}" / "ledger.jsonl").read_bytes().splitlines()
        assert copy == lines[: len(copy)]
        assert len(copy) == len(lines) - 1  # all but the last release


FAULTS = {
    "vanishes": (lambda answer: [], "did not answer within 0.3 s"),
    "unreadable": (lambda answer: [None], "sent nothing that can be read"),
    "nan": (sends_instead(lambda v: [math.nan, *v[1:]]), "did not send integers"),
    "nan bytes": (sends_instead(lambda v: np.full(4, np.nan).tobytes()[:-1]), "did not send int"),
    "a list": (sends_instead(lambda v: v), "did not send integers"),
    "words": (sends_instead(lambda v: "0123"), "did not send integers"),
    "torn": (lambda answer: [answer | {"values": answer["values"][:-1]}], "did not send integers"),
    "missing": (lambda answer: [{"charge": answer["charge"]}], "did not send integers"),
    "short": (numbers_changed(lambda v: v[1:]), "sent 3 numbers, 4 were asked for"),
    "long": (numbers_changed(lambda v: [*v, 0]), "sent 5 numbers, 4 were asked for"),
    "too large": (numbers_changed(largest), "sent a vector that is longer than its units' clips"),
    "stale": (
        lambda answer: [answer | {"charge": answer["charge"] - 1}],
        "answered another round than it was asked for",
    ),
    "error": (lambda answer: [{"refused": "secret\n\x1b[31mtext."}], "refuses: secret[31mtext"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_round_is_completed_without_a_client_that_fails(run, fault, monkeypatch):
    config, clients, told = run()
    spoil, words = FAULTS[fault]
    clients.spoils[11, 1] = spoil
    federate(config, clients, told)
    assert len(told.faults) == 1
    assert told.faults[0].startswith(f"round 1: client 11 {words}")
    record = record_of(config)
    assert sorted(record.releases) == [0, 1, 2, 3]
    assert describe_guarantee(record)["steps_charged"] == 4


def test_what_the_failing_client_sent_is_not_in_the_sum(run, monkeypatch):
    seen: list[list[int]] = []

    def publish(self, total):
        seen.append(total)
        return tuple(total)

    monkeypatch.setattr(Boundary, "publish", publish)
    config, clients, told = run(trust="server")
    shares: dict[int, list[int]] = {}
    for client in (10, 11, 12):
        clients.spoils[client, 0] = lambda answer, client=client: (
            shares.update({client: integers(answer)}) or [answer]
        )
    clients.spoils[11, 0] = numbers_changed(largest)
    federate(config, clients, told)
    assert seen[0] == [a + b for a, b in zip(shares[10], shares[12], strict=True)]


@pytest.mark.parametrize("level", ["example", "client"])
@pytest.mark.parametrize("trust", ["server", "nobody"])
def test_what_leaves_a_client_has_the_whole_noise_unless_the_server_is_trusted(
    run, trust, level, monkeypatch
):
    exact: list[list[int]] = []
    bounded_sum = Boundary.bounded_sum

    def watched(self, scalars, unit_of_row):
        exact.append(bounded_sum(self, scalars, unit_of_row))
        return exact[-1]

    monkeypatch.setattr(Boundary, "bounded_sum", watched)
    config, clients, told = run(trust=trust, level=level)
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, directions=64))
    sent: list[list[int]] = []
    for client in (10, 11, 12):
        for number in range(4):
            clients.spoils[client, number] = lambda answer: (
                sent.append(integers(answer, 64)) or [answer]
            )
    federate(config, clients, told)
    noise = np.array(sent, dtype=object) - np.array(exact, dtype=object)
    assert noise.shape == (12, 64)
    if trust == "server":
        assert not noise.any()
        return
    plan = PrivacyPlan.from_json(record_of(config).header["plan"])
    # Laplace noise has its scale for a mean absolute value, and for its deviation: that of a mean
    # of 768 is a 28th of it, and 5 of those are chance once in a million. A third of the variance,
    # as three clients might add that trust each other, would be 0.58 of it.
    assert noise.all()
    assert 0.8 < np.abs(noise.astype(float)).mean() / plan.noise_scale < 1.2
    totals = np.array([sum(np.array(sent[n : n + 3], dtype=object)) for n in (0, 3, 6, 9)])
    releases = record_of(config).releases
    assert [list(releases[n]) for n in range(4)] == totals.tolist()


def test_steps_are_smaller_where_every_client_adds_the_whole_noise(run):
    """The learning rate goes with the fourth root of 1 / variance, once noise is large."""
    found = []
    for trust in ("server", "nobody"):
        config, _, _ = run(trust=trust, level="client")
        session = opening.begin(config, units=3)
        found.append((session.plan.noise_of_mean, session.settings.learning_rate))
    (trusting, rate), (alone, smaller) = found
    assert math.isclose(smaller / rate, (trusting / alone / math.sqrt(3)) ** 0.5)


def test_an_answer_counts_once(run):
    config, clients, told = run()
    clients.spoils[10, 2] = lambda answer: [answer, *numbers_changed(lambda v: [0] * 4)(answer)]
    federate(config, clients, told)
    assert told.faults == ["round 2: client 10 answered twice; its first answer counts."]
    assert sorted(record_of(config).releases) == [0, 1, 2, 3]


def test_with_too_few_answers_a_round_is_charged_and_skipped(run, tmp_path):
    config, clients, told = run(least_replies=2)
    for client in (10, 12):
        clients.spoils[client, 1] = lambda answer: []
    summary = federate(config, clients, told)
    assert told.faults[-1] == "round 1: too few answers; it is charged and skipped."
    record = record_of(config)
    assert sorted(record.releases) == [0, 2, 3]
    assert record.charges == 4
    assert summary["rounds_skipped"] == 1
    assert summary["epsilon"] == describe_guarantee(record)["epsilon"]
    replay(Path(config.output) / "ledger.jsonl", model=None, out=tmp_path / "again")


def test_a_client_that_lost_its_copy_gets_the_lines_again(run, tmp_path):
    config, clients, told = run()

    def lose(answer):
        (tmp_path / "client1" / "ledger.jsonl").unlink()
        return [answer]

    clients.spoils[11, 1] = lose
    federate(config, clients, told)
    assert told.faults == []
    assert sorted(record_of(config).releases) == [0, 1, 2, 3]


def test_a_server_that_is_stopped_goes_on_with_the_next_round(run):
    config, clients, told = run()

    clients.spoils[12, 1] = stop  # round 1 is charged, and two clients have answered it
    with pytest.raises(Stopped):
        federate(config, clients, told)
    assert record_of(config).charges == 2
    summary = federate(config, clients, told)
    record = record_of(config)
    assert record.charges == 4
    assert sorted(record.releases) == [0, 2, 3]
    assert summary["rounds_skipped"] == 1


def test_a_server_that_is_started_again_goes_on_without_a_client_that_left(run):
    config, clients, told = run(least_replies=2)
    clients.spoils[12, 1] = stop
    with pytest.raises(Stopped):
        federate(config, clients, told)
    clients.gone = {11}
    summary = federate(config, clients, told)
    record = record_of(config)
    assert sorted(record.releases) == [0, 2, 3]
    assert summary["clients"] == 3
    clients.gone = {10, 11, 12}
    assert federate(config, clients, told) == summary  # complete, and nobody is needed


def test_it_waits_for_as_many_as_a_round_needs(run):
    config, clients, told = run(least_replies=2)
    clients.spoils[12, 1] = stop
    with pytest.raises(Stopped):
        federate(config, clients, told)
    clients.gone = {10, 11}
    with pytest.raises(TooFewClients, match=r"2 clients are needed, 1 are there after 0\.3 s"):
        federate(config, clients, told)
    assert record_of(config).charges == 2


def test_no_round_is_spent_on_clients_that_refuse_a_run_that_goes_on(run):
    config, clients, told = run()
    clients.spoils[12, 1] = stop
    with pytest.raises(Stopped):
        federate(config, clients, told)
    _, refusing, told = run({"epsilon": 1.0})
    with pytest.raises(TooFewClients, match=r"1 clients are needed, 0 are there"):
        federate(config, refusing, told)
    assert record_of(config).charges == 2


def test_a_ledger_that_was_set_back_is_noticed_by_clients(run):
    config, clients, told = run()

    path = Path(config.output) / "ledger.jsonl"
    clients.spoils[10, 3] = stop
    with pytest.raises(Stopped):
        federate(config, clients, told)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]))  # as if rounds 2 and 3 had never been asked for
    federate(config, clients, told)
    assert any("asked for before" in words or "otherwise" in words for words in told.faults)
    assert len(record_of(config).releases) < 4


@pytest.mark.parametrize(
    ("owner", "federated", "words"),
    [
        ({"trusts_server": False}, {}, "does not trust the server"),
        ({"epsilon": 1.0}, {}, "its owner allows 1.0"),
        ({"delta": 1e-7}, {}, "its owner allows 1e-07"),
    ],
)
def test_a_client_refuses_what_its_owner_does_not_allow(run, owner, federated, words):
    config, clients, told = run(owner, **federated)
    privacy = dataclasses.replace(config.privacy, mechanism="gaussian", delta=1e-6)
    config = dataclasses.replace(config, privacy=privacy)
    with pytest.raises(TooFewClients, match="3 were expected, 0 said what they hold"):
        federate(config, clients, told)
    assert len(told.faults) == 3
    assert words in told.faults[0]
    assert not (Path(config.output) / "ledger.jsonl").exists()


CLAIMS = {
    "no privacy": (lambda h: h.update(private=False), "has no privacy"),
    "large delta": (lambda h: h["plan"].update(mechanism="gaussian", delta=0.01), "δ is 0.01"),
    "another unit": (lambda h: h["plan"].update(unit="user_id"), "not that of what its clients"),
    "by client": (
        lambda h: (
            h["plan"].update(unit="client"),
            h["config"]["federated"].update(level="client"),
        ),
        "not that of what its clients",
    ),
    "another adjacency": (lambda h: h["plan"].update(adjacency="replace-one"), "not that of what"),
    "a level without clients": (
        lambda h: h["config"]["federated"].update(level="client", clients=0),
        "federated.clients: 0 is not accepted",
    ),
    "code": (
        lambda h: h["config"]["task"].update(objective="os:rename"),
        "clients run no function",
    ),
    "shapes of no rows": (
        lambda h: h["shapes"][0].update(rows=0),
        "not those of its data.max_length",
    ),
    "a shape like another": (
        lambda h: h["shapes"].append(h["shapes"][-1]),
        "not those of its data.max_length",
    ),
    "longer texts": (
        lambda h: h["shapes"].append(h["shapes"][-1] | {"length": 64}),
        "not those of its data.max_length",
    ),
    "no text fits": (lambda h: h.update(shapes=[]), "not those of its data.max_length"),
    "long texts do not fit": (lambda h: h["shapes"].pop(), "not those of its data.max_length"),
    "long texts first": (lambda h: h["shapes"].reverse(), "not those of its data.max_length"),
    "masks": (
        lambda h: h["config"]["federated"].update(trust="secure-aggregation"),
        "its masks can be searched through",
    ),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_client_does_not_believe_a_header(run, claim):
    """What ε is of, and what a client would do, both follow from the header: they have to agree."""
    config, clients, told = run({"delta": 1e-5})
    federate(config, clients, told)
    header = json.loads(json.dumps(record_of(config).header))
    client = clients._clients[10]
    client._require_allowed(header)
    change, words = CLAIMS[claim]
    change(header)
    with pytest.raises(Refusal, match=words):
        client._require_allowed(header)


@pytest.mark.parametrize("cost", [(math.nan, 1e-6), (1.0, math.nan), (math.inf, 1e-6)])
def test_what_is_no_number_is_beyond_what_an_owner_allows(run, cost):
    _, clients, _ = run({"epsilon": 2.0})
    client = clients._clients[10]
    client._require_affordable(1.0, 1e-6)
    with pytest.raises(Refusal, match=r"its owner allows"):
        client._require_affordable(*cost)


def test_a_client_knows_nothing_of_a_search_that_a_header_says_it_is_of(run):
    config, clients, told = run()
    privacy = dataclasses.replace(config.privacy, mechanism="gaussian")
    federate(dataclasses.replace(config, privacy=privacy), clients, told)
    header = json.loads(json.dumps(record_of(config).header))
    client = clients._clients[10]
    client._require_allowed(header)
    plan = PrivacyPlan.from_json(header["plan"])
    search = PrivateSearch(Poisson(5.0), ((plan.phase,),))
    header["plan"] = json.loads(json.dumps(dataclasses.replace(plan, search=search).to_json()))
    with pytest.raises(Refusal, match="that of a search"):
        client._require_allowed(header)


def test_a_header_that_trusts_its_server_is_not_believed_by_an_owner_who_does_not(run):
    """Whatever the server said when it asked how many units there are."""
    config, clients, told = run({"trusts_server": False}, trust="nobody")
    federate(config, clients, told)
    header = json.loads(json.dumps(record_of(config).header))
    client = clients._clients[10]
    client._require_allowed(header)
    header["config"]["federated"]["trust"] = "server"
    with pytest.raises(Refusal, match="does not trust the server"):
        client._require_allowed(header)


def test_without_its_clients_a_run_does_not_begin(run):
    config, clients, told = run()
    clients.gone = {11}
    with pytest.raises(TooFewClients, match=r"3 were expected, 2 came in 0\.3 s"):
        federate(config, clients, told)
    assert not (Path(config.output) / "ledger.jsonl").exists()


@pytest.mark.parametrize("count", [1, 3])
def test_a_client_that_had_gone_when_a_run_began_is_asked_again(run, monkeypatch, count):
    """As on a SuperLink: who has died counts as there for a while, then as gone."""
    config, clients, told = run(timeout=30.0)
    ask, ids = clients.ask, clients.ids
    dead = set(ids()[:count])
    looks = 0

    def answers(kind, contents, *, seconds):
        for answer in ask(kind, contents, seconds=seconds):
            if answer.client in dead:
                clients.gone |= {answer.client}
                answer = Answer(answer.client, None, gone=True)
            yield answer

    def there():
        nonlocal looks
        looks += bool(clients.gone)
        if looks > 2:
            clients.gone = set()
            dead.clear()
        return ids()

    monkeypatch.setattr(clients, "ask", answers)
    monkeypatch.setattr(clients, "ids", there)
    assert federate(config, clients, told)["clients"] == 3
    assert told.faults == []
    assert describe_guarantee(record_of(config))["population"] == 60


def test_of_a_client_that_goes_in_a_round_it_is_said_that_it_is_not_there(run, monkeypatch):
    config, clients, told = run()
    ask = clients.ask

    def answers(kind, contents, *, seconds):
        for answer in ask(kind, contents, seconds=seconds):
            last = kind == ROUND and answer.client == 11 and answer.content["charge"] == 1
            yield Answer(11, None, gone=True) if last else answer

    monkeypatch.setattr(clients, "ask", answers)
    federate(config, clients, told)
    assert told.faults == ["round 1: client 11 is not there."]
    assert sorted(record_of(config).releases) == [0, 1, 2, 3]


def test_no_round_is_spent_while_nobody_is_there(run):
    config, clients, told = run()

    def leave(answer):
        clients.gone = {10, 11, 12}
        return [answer]

    clients.spoils[12, 1] = leave
    with pytest.raises(TooFewClients, match="the same command goes on"):
        federate(config, clients, told)
    assert record_of(config).charges == 2
    clients.gone = set()
    federate(config, clients, told)
    assert sorted(record_of(config).releases) == [0, 1, 2, 3]


def test_data_whose_reading_panics_is_refused_like_any_that_cannot_be_read(run, capsys):
    config, clients, told = run({"read": panic})
    with pytest.raises(TooFewClients, match="0 said what they hold"):
        federate(config, clients, told)
    assert "has a problem; its own terminal says which" in told.faults[0]
    assert "Panic" in capsys.readouterr().err


def test_an_error_at_a_client_says_nothing_of_its_data(run, monkeypatch, capsys):
    def fail(*_: object, **__: object):
        raise RuntimeError("a private sentence")

    monkeypatch.setattr(clients_side, "slopes_of_usable", fail)
    config, clients, told = run()
    with pytest.raises(InVain):
        federate(config, clients, told)
    assert told.faults
    assert "private sentence" not in json.dumps(told.faults)
    assert "private sentence" in capsys.readouterr().err


def test_owners_whose_folders_are_of_another_run_are_not_asked_for_a_round(run):
    config, clients, told = run()
    federate(config, clients, told)
    another = dataclasses.replace(config, output=config.output + "-2")
    with pytest.raises(TooFewClients, match="3 were expected, 0 said what they hold"):
        federate(another, clients, told)
    assert told.faults == [
        f"client {n} refuses: has answered another run from this folder." for n in (10, 11, 12)
    ]
    assert not (Path(another.output) / "ledger.jsonl").exists()


def unreadable(answer):
    return [None]


def refusing(answer):
    return [{REFUSED: "does not want to."}]


@pytest.mark.parametrize("spoil", [refusing, unreadable, sends_instead(lambda _: "words")])
def test_two_rounds_are_spent_where_nothing_can_be_used(run, spoil):
    config, clients, told = run(least_replies=2)
    clients.spoils |= {(client, number): spoil for client in (10, 12) for number in (0, 1)}
    with pytest.raises(InVain, match=r"rounds 0 and 1: so many answers cannot be used"):
        federate(config, clients, told)
    assert told.faults[0].startswith("round 0: client 10 ")
    assert (record_of(config).charges, record_of(config).releases) == (2, {})
    summary = federate(config, clients, told)
    assert summary["rounds_skipped"] == 2
    assert sorted(record_of(config).releases) == [2, 3]


@pytest.mark.parametrize("rounds", [(0, 2), (2, 3)])
def test_rounds_in_vain_end_no_run_that_goes_on_or_has_come_to_its_end(run, rounds):
    config, clients, told = run(least_replies=3)
    clients.spoils |= {(11, number): refusing for number in rounds}
    summary = federate(config, clients, told)
    assert summary["rounds_skipped"] == 2
    assert sorted(record_of(config).releases) == sorted({0, 1, 2, 3} - {*rounds})


def test_a_client_that_goes_in_two_rounds_is_waited_for(run, monkeypatch):
    """Where its machine starts again, say; it is there before each round, and then it is not."""
    config, clients, told = run(least_replies=3)
    ask, rounds = clients.ask, 0

    def goes(kind, contents, *, seconds):
        nonlocal rounds
        rounds += kind == ROUND
        for answer in ask(kind, contents, seconds=seconds):
            away = kind == ROUND and rounds in (2, 3) and answer.client == 11
            yield Answer(11, None, gone=True) if away else answer

    monkeypatch.setattr(clients, "ask", goes)
    assert federate(config, clients, told)["rounds_skipped"] == 2
    assert sorted(record_of(config).releases) == [0, 3]


def test_of_a_client_that_comes_later_than_all_there_is_a_line(run):
    config, clients, told = run()
    four = dataclasses.replace(config, federated=dataclasses.replace(config.federated, clients=4))
    late = LocalClients(config.data.eval, four, Path(config.output).parent / "late")._clients[13]

    def comes(answer):
        clients._clients[13] = late
        return [answer]

    clients.spoils[12, 1] = comes
    clients.spoils[12, 2] = stop
    with pytest.raises(Stopped):
        federate(config, clients, told)
    line = (
        "4 clients are there, and federated.clients is 3; all take part, and the run's number of "
        "units stays as it is."
    )
    assert told.faults == [line]
    summary = federate(config, clients, told)
    assert told.faults == [line, line]
    assert len(clients.asked[13]) == 1  # the server was stopped before it asked in round 2
    assert (summary["clients"], summary["rounds_skipped"]) == (3, 1)
    assert describe_guarantee(record_of(config))["population"] == 60


def test_a_run_folder_is_of_one_run(run, encoder_folder, reviews, tmp_path):
    config, clients, told = run()
    federate(config, clients, told)
    with pytest.raises(LedgerError, match="federated"):
        federate(configuration(encoder_folder, reviews, tmp_path, trust="nobody"), clients, told)


@pytest.mark.parametrize("sent", [b"", b"{}\n", packed(b"lines\n")[:-1]])
def test_lines_that_cannot_be_unpacked_are_refused(sent):
    with pytest.raises(LedgerError, match="can be read"):
        unpacked(sent)


def test_lines_are_unpacked_as_they_were_and_not_without_end(monkeypatch):
    assert unpacked(packed(b"one\ntwo\n")) == b"one\ntwo\n"
    monkeypatch.setattr(messages, "_MOST_BYTES", 100)
    assert unpacked(packed(b"a" * 100)) == b"a" * 100
    with pytest.raises(LedgerError, match="can be read"):
        unpacked(packed(b"a" * 101))


def test_a_client_that_begins_again_reads_its_whole_copy(run):
    """What it remembers of the copy is enough to go on, and not to make the model again."""
    config, clients, told = run()
    work = clients._clients[10]._work

    def forget(answer):
        work.session = None
        return [answer]

    clients.spoils[10, 2] = forget
    federate(config, clients, told)
    assert told.faults == []
    record = record_of(config)
    session = opening.resume(record.header)
    session.update().replay({charge: record.releases[charge] for charge in (0, 1, 2)})
    assert work.session is not None
    found = hash_tensors(work.session.parameters.items())
    assert found == hash_tensors(session.parameters.items())


@pytest.mark.parametrize("trust", ["server", "nobody"])
def test_how_long_an_answer_is_tells_nothing_of_its_integers(run, trust):
    """Whoever watches the network sees that, and with a trusted server sums have no noise."""
    pytest.importorskip("flwr")
    from hushtune.federated.grid import bytes_of

    lengths: set[int] = set()
    config, clients, told = run(trust=trust)
    for client in (10, 11, 12):
        for number in range(4):
            clients.spoils[client, number] = lambda answer: (
                lengths.add(bytes_of(answer, ROUND)) or [answer]
            )
    seen: list[list[int]] = []
    for client in (10, 11, 12):
        small = numbers_changed(lambda v: seen.append(v) or [value // 2**20 for value in v])
        clients.spoils[client, 3] = lambda answer, small=small: (
            lengths.add(bytes_of(*small(answer), ROUND)) or small(answer)
        )
    federate(config, clients, told)
    assert max(abs(value) for each in seen for value in each) > 2**24
    assert len(lengths) == 1
    assert told.faults == []
