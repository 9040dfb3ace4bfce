"""Runs that are entered in a registry, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hushtune.cli import main
from hushtune.guarantee import rounded_up
from hushtune.privacy import ledger as ledgers


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "registry.jsonl"


@pytest.fixture
def command(capsys):
    def run(*arguments: object, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(list(map(str, arguments)))
        shown = capsys.readouterr()
        assert (exit_.value.code or 0) == code, shown.err
        return shown.out, shown.err

    return run


@pytest.fixture
def train(command, run_arguments, registry, tmp_path):
    """Trains four steps in a folder of the given name, as a registered run."""

    def run(name: str, *flags: object, code: int = 0) -> tuple[str, str]:
        chosen = ["--output", tmp_path / name, "--method.steps", 4, "--data.identity", "reviews"]
        where = ["--privacy.registry", registry]
        return command("train", *run_arguments, *chosen, *where, *flags, "--json", code=code)

    return run


def test_two_seeds_cost_what_both_cost(command, train, registry):
    command("privacy", "--registry", registry, "--new")
    train("one", "--seed", 1)
    train("two", "--seed", 2)
    out, _ = command("privacy", "--registry", registry, "--json")
    shown = json.loads(out)
    assert [entry["what"] for entry in shown["entries"]] == ["training", "training"]
    (total,) = shown["totals"]
    assert total["epsilon"] == pytest.approx(sum(entry["epsilon"] for entry in shown["entries"]))
    assert (total["data"], total["unit"], total["entries"]) == ("reviews", "example", 2)

    command(
        "privacy", "--registry", registry, "--add", "evaluation", "--data", "reviews",
        "--epsilon", 0.5, "--note", "accuracy on Friday",
    )  # fmt: skip
    out, _ = command("privacy", "--registry", registry, "--data", "reviews")
    assert "accuracy on Friday" in out
    more, _ = command("privacy", "--registry", registry, "--json")
    (total_now,) = json.loads(more)["totals"]
    assert total_now["epsilon"] == pytest.approx(total["epsilon"] + 0.5)
    assert f"together: ε = {rounded_up(total_now['epsilon'])}" in " ".join(out.split())
    assert "if all of it was fixed beforehand" in " ".join(out.split())


def test_a_finished_run_is_entered_once_and_a_copy_of_its_beginning_is_refused(
    command, train, registry, tmp_path
):
    command("privacy", "--registry", registry, "--new")
    train("run")
    again, _ = train("run")
    assert json.loads(again)["steps"] == 4
    # The same folder, set back to its header.
    ledger = tmp_path / "run" / "ledger.jsonl"
    header = ledger.read_bytes().split(b"\n")[0] + b"\n"
    shutil.rmtree(tmp_path / "run")
    ledger.parent.mkdir()
    ledger.write_bytes(header)
    _, refusal = train("run", code=1)
    assert refusal.startswith("hushtune train: ")
    assert "set back or is a copy" in refusal
    assert ledgers.read(ledger).charges == 0
    # Begun anew it is another run, with a budget of its own.
    shutil.rmtree(tmp_path / "run")
    train("run")
    out, _ = command("privacy", "--registry", registry, "--json")
    assert len(json.loads(out)["entries"]) == 2


def test_without_its_registry_a_run_does_not_begin(train, registry, tmp_path):
    _, refusal = train("run", code=1)
    assert "no such registry" in refusal
    assert refusal.count("\n") == 1
    assert ledgers.read(tmp_path / "run" / "ledger.jsonl").charges == 0


def test_a_registry_needs_a_name_for_the_data(command, run_arguments, registry):
    _, refusal = command("train", *run_arguments, "--privacy.registry", registry, code=1)
    assert "data.identity" in refusal


@pytest.mark.parametrize(
    ("arguments", "because"),
    [
        ([], "expected a run folder"),
        (["run", "--new"], "--registry"),
        (["run", "--registry", "r"], "without a run"),
        (["--registry", "r"], "r: no such file"),
        (["--registry", "r", "--add", "evaluation", "--data", "x"], "--epsilon"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    arguments, because, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    _, refusal = command("privacy", *arguments, code=1)
    assert because in refusal
    assert refusal.count("\n") == 1
