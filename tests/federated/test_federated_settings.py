"""What a federated run accepts, what it refuses, and what other commands say to its settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from local import configuration, without

from hushtune.cli import main
from hushtune.config import ConfigError
from hushtune.config.federated_checks import check_federated
from hushtune.federated.apps import _owner, write_app


def test_a_run_of_some_clients_is_accepted(tmp_path: Path):
    check_federated(configuration("model", "data.jsonl", tmp_path))


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


@pytest.mark.parametrize("command", ["train", "plan"])
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
    owner = _owner(said)
    assert owner.epsilon == 2.0
    assert not owner.trusts_server  # nobody is trusted who was not named
    assert _owner(said | {"trust": "server"}).trusts_server
    assert owner.delta == 1e-5
    assert _owner(said | {"delta": 1e-6}).delta == 1e-6
    for missing in ("data", "folder", "epsilon"):
        with pytest.raises(ConfigError, match=f"does not say {missing}"):
            _owner({name: value for name, value in said.items() if name != missing})
    with pytest.raises(ConfigError, match="trust that is not known"):
        _owner(said | {"trust": "everybody"})
