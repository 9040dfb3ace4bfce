"""What a federated run accepts, what it refuses, and what other commands say to its settings."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from commands import command, refusal
from local import LocalClients, Told, configuration, without

from hushtune.cli import main
from hushtune.cli.arguments import parse_run
from hushtune.config import ConfigError, load
from hushtune.config.federated_checks import check_federated
from hushtune.federated.apps import _owner, write_app
from hushtune.federated.grid import bytes_of
from hushtune.federated.messages import ROUND
from hushtune.federated.server import federate

EXAMPLE = Path(__file__).parents[2] / "examples" / "federated.yaml"


def test_a_run_of_some_clients_is_accepted(tmp_path: Path):
    check_federated(configuration("model", "data.jsonl", tmp_path))


def test_the_example_is_accepted():
    check_federated(load(EXAMPLE))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clients": 1}, "federated.clients: 1 is not accepted; it must be at least 2"),
        ({"trust": "secure-aggregation"}, "its masks can be searched through"),
        ({"least_replies": 0}, "from 1 to federated.clients, 3"),
        ({"least_replies": 4}, "from 1 to federated.clients, 3"),
        ({"timeout": 0.0}, "federated.timeout: 0.0 is not accepted"),
        ({"examples": float("inf")}, "federated.examples: Infinity is not accepted"),
        ({"heterogeneity": -1.0}, "federated.heterogeneity: -1.0 is not accepted"),
    ],
)
def test_what_cannot_work_is_refused(changes, words, tmp_path: Path):
    config = without(configuration("model", "data.jsonl", tmp_path), **changes)
    with pytest.raises(ConfigError) as refused:
        check_federated(config)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("data", {"unit": "user_id"}),
        ("data", {"population": 50}),
        ("method", {"batch": 2.0}),
    ],
)
def test_where_clients_are_the_units_nothing_else_is(section, changes, tmp_path: Path):
    config = without(configuration("model", "data.jsonl", tmp_path), level="client")
    changed = dataclasses.replace(getattr(config, section), **changes)
    with pytest.raises(ConfigError, match=r"level client"):
        check_federated(dataclasses.replace(config, **{section: changed}))


def test_a_scoring_function_of_ones_own_is_not_federated(tmp_path: Path):
    config = configuration("model", "data.jsonl", tmp_path)
    task = dataclasses.replace(config.task, objective="cost.py:score")
    with pytest.raises(ConfigError, match=r"task\.objective: .* clients run no function"):
        check_federated(dataclasses.replace(config, task=task))


def test_comparison_methods_are_not_federated(tmp_path: Path):
    config = configuration("model", "data.jsonl", tmp_path)
    method = dataclasses.replace(config.method, name="mezo", directions="auto")
    privacy = dataclasses.replace(config.privacy, mechanism="none")
    with pytest.raises(ConfigError, match=r"method\.name: .mezo. is not accepted"):
        check_federated(dataclasses.replace(config, method=method, privacy=privacy))


@pytest.mark.parametrize("command", ["train"])
def test_other_commands_say_where_it_is_run(command, run_arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, *run_arguments, "--federated.clients", "3"])
    assert exit_.value.code == 1
    assert "`hushtune federate`" in capsys.readouterr().err


def test_the_app_holds_the_run_and_is_written_once(run_arguments, tmp_path: Path, capsys):
    import tomllib

    arguments = ["federate", *run_arguments, "--federated.clients", "2"]
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--app", str(tmp_path / "app")])
    assert not exit_.value.code
    assert "flwr run" in capsys.readouterr().out
    project = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())
    assert '"clients": 2' in project["tool"]["flwr"]["app"]["config"]["hushtune-run"]
    with pytest.raises(ConfigError, match="a new folder"):
        write_app(configuration("model", "data.jsonl", tmp_path), tmp_path / "app")


def test_a_node_says_what_its_owner_allows(tmp_path: Path):
    said = {"data": "rows.jsonl", "folder": str(tmp_path), "epsilon": 2.0, "partition-id": 3}
    with pytest.raises(ConfigError, match="does not say run, and trusts nobody"):
        _owner(said)
    said["run"] = str(EXAMPLE)
    with pytest.raises(ConfigError, match="does not say model, and trusts nobody"):
        _owner(said)
    assert _owner(said | {"trust": "server"}).model is None
    said["model"] = "/models/base"
    owner = _owner(said)
    assert owner.model == "/models/base"
    assert owner.agreed == load(EXAMPLE)
    assert owner.epsilon == 2.0
    assert not owner.trusts_server  # nobody is trusted who was not named
    assert _owner(said | {"trust": "server"}).trusts_server
    assert owner.delta == 1e-5
    assert _owner(said | {"delta": 1e-6}).delta == 1e-6
    for missing in ("data", "folder", "epsilon"):
        with pytest.raises(ConfigError, match=f"does not say {missing}"):
            _owner({name: value for name, value in said.items() if name != missing})
    for name, value in [("epsilon", math.nan), ("epsilon", -1.0), ("epsilon", "2"), ("delta", 1)]:
        with pytest.raises(ConfigError, match=f"has no {name} that can be a limit"):
            _owner(said | {name: value})
    with pytest.raises(ConfigError, match="says detla; it may say data, folder"):
        _owner(said | {"detla": 1e-9})
    with pytest.raises(ConfigError, match="trust that is not known"):
        _owner(said | {"trust": "everybody"})
    assert _owner({**said, "trust": "server"}).agreed is not None
    del said["run"]
    assert _owner({**said, "trust": "server"}).agreed is None
    with pytest.raises(ConfigError) as refused:
        _owner(said | {"run": "/private/run.yaml"})
    assert "/private" not in str(refused.value)


PLANNED = {
    "zeroth-order": {},
    "by client": {"federated.level": "client", "method.batch": "auto"},
    "coded": {
        "method.name": "dr-encoder",
        "method.directions": "auto",
        "model.tune": "lora",
        "federated.trust": "nobody",
    },
}


def flags(run_arguments: list[str], settings: dict[str, str]) -> list[str]:
    """The flags with some values in place of others; the later of two counts."""
    settings = {"federated.clients": "3"} | settings
    given = list(run_arguments)
    for key, value in settings.items():
        if f"--{key}" in given:
            given[given.index(f"--{key}") + 1] = value
        else:
            given += [f"--{key}", value]
    return given


@pytest.mark.parametrize("kind", PLANNED)
def test_a_federated_run_is_planned(kind, run_arguments, capsys):
    arguments = flags(run_arguments, PLANNED[kind])
    found = command(capsys, "plan", *arguments)
    assert found["clients"] == 3
    assert found["trust"] == ("nobody" if kind == "coded" else "server")
    assert found["epsilon"] == found["epsilon_after_steps"][-1][1] <= 4.0
    assert found["expected_seconds"] > 0
    assert found["expected_seconds_of_a_simulation"] >= found["expected_seconds"]
    assert found["expected_peak_mib"] > 0
    rows = 20 if kind == "by client" else found["sampling_probability"] * 60 / 3
    assert found["rows_of_a_client_a_round"] == pytest.approx(rows)
    with pytest.raises(SystemExit) as exit_:
        main(["plan", *arguments])
    assert not exit_.value.code
    shown = " ".join(capsys.readouterr().out.split())
    assert "in a simulation here" in shown
    assert "back" in shown
    assert ("× clip" in shown, ", at each of 3 clients" in shown) == (True, kind == "coded")


@pytest.mark.parametrize("kind", ["zeroth-order", "coded"])
def test_planned_bytes_are_those_of_a_run(kind, run_arguments, reviews, tmp_path, capsys):
    arguments = flags(run_arguments, PLANNED[kind])
    found = command(capsys, "plan", *arguments)
    config = parse_run("federate", arguments)[0]
    sent: dict[str, list[int]] = {"to": [], "back": []}

    class Counted(LocalClients):
        def ask(self, kind, contents, *, seconds):
            for answer in super().ask(kind, contents, seconds=seconds):
                if kind == ROUND:
                    sent["to"].append(bytes_of(contents[answer.client], kind))
                    sent["back"].append(bytes_of(answer.content, kind))
                yield answer

    federate(config, Counted(reviews, config, tmp_path), Told())
    for sent_at_first in sent["to"][:3]:
        assert sent_at_first == pytest.approx(found["bytes_to_client_first_round"], rel=0.05)
    later = slice(3, None)  # the first round sends the header too
    of_a_run = {key: np.mean(each[later]) for key, each in sent.items()}
    assert of_a_run["to"] == pytest.approx(found["bytes_to_client_a_round"], rel=0.05)
    assert of_a_run["back"] == pytest.approx(found["bytes_from_client_a_round"], rel=0.05)


def test_of_data_that_is_elsewhere_somebody_has_to_say_how_much_there_is(run_arguments, capsys):
    arguments = flags(run_arguments, {"data.train": "what each client calls it"})
    assert "data.population" in refusal(capsys, "plan", *arguments)
    found = command(capsys, "plan", *arguments, "--data.population", "90")
    expected = found["sampling_probability"] * 90 / 3
    assert found["rows_of_a_client_a_round"] == pytest.approx(expected)
