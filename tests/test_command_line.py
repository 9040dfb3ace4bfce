"""The command line: help, refusals, and what machines read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import write_reviews

from hushtune import __version__
from hushtune.cli import COMMANDS, main

LABELS = ["--task.labels", "negative", "it was terrible", "positive", "it was great"]


class Shell:
    """Runs commands in this process."""

    def __init__(self, capsys) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        shown = self._capsys.readouterr()
        assert (exit_.value.code or 0) == code, shown.err
        return shown.out, shown.err

    def json(self, *arguments: str, code: int = 0) -> dict:
        out, _ = self(*arguments, "--json", code=code)
        (line,) = out.splitlines()
        return json.loads(line)


@pytest.fixture
def shell(capsys) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def finished(encoder_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with evaluation data; tests copy it to alter it."""
    folder = tmp_path_factory.mktemp("finished")
    train, evaluation = folder / "train.jsonl", folder / "eval.jsonl"
    flags = {
        "--model.name": encoder_folder,
        "--data.train": write_reviews(train, 60),
        "--data.eval": write_reviews(evaluation, 20, seed=1),
        "--data.max-length": "32",
        "--privacy.epsilon": "4",
        "--method.steps": "5",
        "--method.directions": "4",
        "--method.batch": "12",
        "--output": str(folder / "run"),
    }
    with pytest.raises(SystemExit, match="0"):
        main(["train", *(word for flag in flags.items() for word in flag), *LABELS])
    return folder / "run"


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    """A finished run that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(shell: Shell, command: str):
    out, complaint = shell(command, "--help")
    assert f"usage: hushtune {command}" in out
    assert "--json" in out
    assert complaint == ""


def test_the_list_of_commands_is_the_help(shell: Shell):
    out, _ = shell("--help")
    for command, (_, purpose) in COMMANDS.items():
        assert re.search(rf"{command} +{re.escape(purpose)}", out)
    assert shell(code=2)[0] == out


def test_the_version_is_one_line(shell: Shell):
    assert shell("--version")[0] == f"hushtune {__version__}\n"


def test_an_unknown_command_is_refused_with_the_ones_there_are(shell: Shell):
    out, complaint = shell("trian", code=2)
    assert out == ""
    assert complaint.startswith("hushtune: no command 'trian'.\n")
    assert all(command in complaint for command in COMMANDS)


@pytest.mark.parametrize("command", ["privacy", "eval", "replay"])
def test_a_run_that_does_not_exist_is_refused_in_one_line(
    shell: Shell, tmp_path: Path, command: str
):
    nowhere = str(tmp_path / "nowhere")
    rest = {"eval": ["--data", nowhere], "replay": ["--out", nowhere]}.get(command, [])
    out, complaint = shell(command, nowhere, *rest, code=1)
    assert out == ""
    assert re.fullmatch(
        rf"hushtune {command}: {nowhere}(/ledger\.jsonl)?: no such file or directory\.\n", complaint
    )


def test_the_summary_says_what_it_promises(finished: Path):
    summary = json.loads((finished / "summary.json").read_text())
    promised = {"zero_shot_accuracy", "private_accuracy", "epsilon", "delta", "seconds"}
    assert promised | {"peak_rss_mib"} <= summary.keys()
    # Rounded: what a run takes depends on the private sample sizes.
    assert isinstance(summary["seconds"], int)
    assert summary["peak_rss_mib"] % 16 == 0


def test_privacy_says_what_it_promises(shell: Shell, finished: Path):
    for path in (finished, finished / "ledger.jsonl"):
        guarantee = shell.json("privacy", str(path))
        promised = {"epsilon", "delta", "steps_charged", "steps_released", "ledger_ok"}
        assert promised <= guarantee.keys()
        assert guarantee["ledger_ok"] is True
        assert (guarantee["steps_charged"], guarantee["steps_released"]) == (5, 5)
    assert guarantee == json.loads((finished / "privacy.json").read_text()) | {"ledger_ok": True}


def test_privacy_for_people_names_every_term(shell: Shell, finished: Path):
    out, _ = shell("privacy", str(finished))
    for term in (
        "ε = ",
        "δ = 1e-05",
        "per example",
        "add-or-remove-one",
        "gaussian",
        "not covered",
    ):
        assert term in out


def test_eval_says_how_many_rows_and_that_they_are_public(shell: Shell, finished: Path):
    data = str(finished.parent / "eval.jsonl")
    result = shell.json("eval", str(finished), "--data", data)
    summary = json.loads((finished / "summary.json").read_text())
    assert result["accuracy"] == summary["private_accuracy"]
    assert (result["rows"], result["data_is_public"]) == (20, True)
    shown, _ = shell("eval", str(finished), "--data", data)
    assert "treated as public" in " ".join(shown.split())


def test_a_run_that_goes_on_can_be_looked_at(shell: Shell, run_folder: Path):
    ledger = run_folder / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:6]))  # header, two steps, a charge
    guarantee = shell.json("privacy", str(run_folder))
    assert (guarantee["steps_charged"], guarantee["steps_released"]) == (3, 2)
    assert guarantee["ledger_ok"] is True
    assert 0 < guarantee["epsilon_of_charged_steps"] < guarantee["epsilon"]
    assert ledger.read_bytes() == b"".join(lines[:6])


def test_a_torn_line_counts_as_a_charge_and_is_left_alone(shell: Shell, run_folder: Path):
    ledger = run_folder / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    torn = b"".join(lines[:5]) + lines[5][:9]
    ledger.write_bytes(torn)
    guarantee = shell.json("privacy", str(run_folder))
    assert (guarantee["steps_charged"], guarantee["steps_released"]) == (3, 2)
    assert ledger.read_bytes() == torn


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (
            lambda lines: [*lines[:3], lines[3].replace(b'"charge":1', b'"charge":2'), *lines[4:]],
            "line 4: ",
        ),
        (lambda lines: [*lines[:3], *lines[4:]], "line 4: "),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "line 4: "),
        (lambda lines: [*lines[:3], b"\n", *lines[3:]], "line 4: not a line of this file."),
        (lambda lines: lines[1:], "line 1: "),
        (lambda lines: [lines[0][:40]], "no complete header line; nothing was charged."),
        (lambda lines: [], "no complete header line; nothing was charged."),
    ],
    ids=["altered", "missing", "swapped", "inserted", "headless", "torn header", "empty"],
)
def test_a_ledger_that_does_not_verify_is_refused_with_the_line(
    shell: Shell, run_folder: Path, damage, complaint: str
):
    ledger = run_folder / "ledger.jsonl"
    ledger.write_bytes(b"".join(damage(ledger.read_bytes().splitlines(keepends=True))))
    result = shell.json("privacy", str(run_folder), code=1)
    assert result["ledger_ok"] is False
    assert complaint in result["error"]
    out, shown = shell("privacy", str(run_folder), code=1)
    assert out == ""
    assert shown.startswith(f"hushtune privacy: {ledger}")
    assert len(shown.splitlines()) == 1


def test_logs_hold_neither_times_nor_anything_of_a_step(shell: Shell, run_arguments: list[str]):
    out, complaint = shell("train", *run_arguments, "--method.steps", "20")
    assert complaint == ""
    steps = [line for line in out.splitlines() if line.startswith("step ")]
    assert steps == ["step 10 of 20", "step 20 of 20"]
    after_steps = out[out.index(steps[-1]) + len(steps[-1]) :]
    # The only time is the whole run's, in whole seconds, at the end.
    assert out.count("seconds") == len(re.findall(r"seconds +\d+ *\n", after_steps)) == 1
    for word in ("loss", "it/s", "s/step", "remaining", "ETA"):
        assert word not in out
    assert not re.search(r"\d:\d\d|\x1b", out)


def test_a_machine_gets_one_line_and_nothing_else(shell: Shell, run_arguments: list[str]):
    summary = shell.json("train", *run_arguments)
    assert {"epsilon", "delta", "private_accuracy"} <= summary.keys()
