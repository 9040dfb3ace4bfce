"""Real processes, killed in the middle of a run: the same command goes on, and no charge is lost.

A process stops itself at a chosen line of its ledger, and is dealt with there. A kill between a
charge and its release loses that release for good: it is never drawn again. Kills at moments that
nobody chose are those of test_kill_anywhere.py.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hushtune.cli import main
from hushtune.report.terminal import TerminalProgress

STEPS = 60

#: Seconds. A process imports torch before it does anything, on a machine that may be busy.
PATIENCE = 180

#: The command line, but for one stop after a line ("charge" or "release") of a step or a later one.
STOPS_ITSELF = """
import os, signal, sys
from hushtune.cli import main
from hushtune.privacy.ledger import Ledger

line, least = sys.argv.pop(1), int(sys.argv.pop(1))
write = getattr(Ledger, line)

def write_and_stop(ledger, *content):
    written = write(ledger, *content)
    if (content[0] if content else written) >= least:
        setattr(Ledger, line, write)
        os.kill(os.getpid(), signal.SIGSTOP)
    return written

setattr(Ledger, line, write_and_stop)
main()
"""

Lines = list[dict]


class Run:
    """A run folder, and processes that train in it."""

    def __init__(self, arguments: Sequence[str], folder: Path, capsys) -> None:
        self._arguments = ["train", *arguments, "--method.steps", str(STEPS), "--json"]
        self._capsys = capsys
        self.folder = folder
        self.ledger = folder / "ledger.jsonl"

    def lines(self) -> Lines:
        """The whole lines of the ledger."""
        return [json.loads(line) for line in self.ledger.read_bytes().split(b"\n")[:-1]]

    def start_and_stop(self, line: str, step: int) -> subprocess.Popen[str]:
        """The run in a process of its own, stopped after the `line` of a step, or a later one."""
        process = subprocess.Popen(
            [sys.executable, "-c", STOPS_ITSELF, line, str(step), *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        changes = os.WSTOPPED | os.WEXITED | os.WNOWAIT
        change = os.waitid(os.P_PID, process.pid, changes)
        assert change is not None
        assert change.si_code == os.CLD_STOPPED, process.communicate()
        assert line in self.lines()[-1]
        return process

    def kill(self, line: str, step: int) -> Lines:
        """Start a process, kill it right after the `line` of a step; returns the ledger."""
        process = self.start_and_stop(line, step)
        process.kill()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL
        return self.lines()

    def command(self, *arguments: str) -> tuple[int, dict, str]:
        """Exit code, JSON and complaint of a command in this process."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        shown = self._capsys.readouterr()
        return int(exit_.value.code or 0), json.loads(shown.out or "{}"), shown.err

    def train(self, *flags: str) -> tuple[int, dict, str]:
        """The run in this process."""
        return self.command(*self._arguments, *flags)


@pytest.fixture
def run(run_arguments: list[str], tmp_path: Path, capsys) -> Run:
    return Run(run_arguments, tmp_path / "run", capsys)


def charges(lines: Lines) -> list[int]:
    return [line["charge"] for line in lines if "charge" in line]


def releases(lines: Lines) -> list[int]:
    return [line["release"] for line in lines if "release" in line]


def check_finished(run: Run, lost: set[int]) -> None:
    """The run is complete, tells the truth about its budget, and is what its ledger says."""
    lines = run.lines()
    assert charges(lines) == list(range(STEPS))
    assert releases(lines) == [charge for charge in range(STEPS) if charge not in lost]

    code, guarantee, _ = run.command("privacy", str(run.folder), "--json")
    assert (code, guarantee["ledger_ok"]) == (0, True)
    assert guarantee["steps_charged"] == guarantee["steps"] == STEPS
    assert guarantee["steps_released"] == STEPS - len(lost)
    assert guarantee["epsilon"] == guarantee["epsilon_of_charged_steps"]
    assert guarantee["epsilon"] == json.loads((run.folder / "summary.json").read_text())["epsilon"]
    assert 3.9 < guarantee["epsilon"] <= 4

    again = run.folder.parent / "again"
    code, _, complaint = run.command("replay", str(run.ledger), "--out", str(again), "--json")
    assert code == 0, complaint
    files = [path for path in (run.folder / "model").rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    for path in files:
        assert path.read_bytes() == (again / path.relative_to(run.folder)).read_bytes(), path.name


def test_killed_and_interrupted_within_a_step_the_same_command_goes_on(run: Run, tmp_path: Path):
    before = run.kill("charge", 2)
    killed = before[-1]["charge"]
    assert charges(before) == list(range(killed + 1))
    assert releases(before) == list(range(killed))
    code, guarantee, _ = run.command("privacy", str(run.folder), "--json")
    assert code == 0
    assert guarantee["steps_charged"] == guarantee["steps_released"] + 1 == killed + 1
    # What was promised is the plan, however far a run has come.
    assert guarantee["epsilon_of_charged_steps"] < guarantee["epsilon"]

    noted = before[-1]["hash"]

    # Half-way, the folder takes no other configuration and no other data.
    refuse_another_run(run, tmp_path / "train.jsonl")
    assert run.lines() == before

    # While one process goes on, there is no other.
    process = run.start_and_stop("charge", 25)
    assert run.train() == (
        1,
        {},
        f"hushtune train: {run.ledger}: another process is training in this run folder.\n",
    )
    assert run.lines()[: len(before)] == before
    before = run.lines()

    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, complaint = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert complaint == "hushtune train: interrupted; the same command goes on.\n"
    assert run.lines()[: len(before)] == before
    before = run.lines()

    code, _, complaint = run.train()
    assert code == 0, complaint
    assert run.lines()[: len(before)] == before
    # The interrupted step may have come as far as its release.
    interrupted = {charges(before)[-1]} - {releases(before)[-1]}
    check_finished(run, lost={killed} | interrupted)

    # Of the head that was noted then, the ledger is a continuation.
    code, guarantee, _ = run.command("privacy", str(run.folder), "--expect", noted, "--json")
    assert (code, guarantee["expected_head"]) == (0, "extended")
    assert guarantee["lines_added"] == len(run.lines()) - 2 * (killed + 1)

    # Finished, it stays as it is.
    ledger = run.ledger.read_bytes()
    assert run.train()[0] == 0
    assert run.ledger.read_bytes() == ledger


def refuse_another_run(run: Run, rows: Path) -> None:
    for flags, name in [(["--seed", "1"], "seed"), (["--privacy.epsilon", "5"], "privacy.epsilon")]:
        code, _, complaint = run.train(*flags)
        assert code == 1
        assert f"belongs to a different run ({name} differ)" in complaint
    original = rows.read_text()
    rows.write_text(original + original.splitlines()[0] + "\n")
    code, _, complaint = run.train()
    assert code == 1
    assert "has 61 units" in complaint
    assert len(complaint.splitlines()) == 1
    rows.write_text(original)


def test_killed_between_the_last_step_and_the_model_it_is_saved_by_the_next_run(run: Run):
    before = run.kill("release", STEPS - 1)
    assert not (run.folder / "summary.json").exists()
    code, _, complaint = run.train()
    assert code == 0, complaint
    assert run.lines() == before
    check_finished(run, lost=set())


def test_a_full_disk_ends_the_run_in_one_line_and_the_same_command_goes_on(run: Run, monkeypatch):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(_: TerminalProgress, *__: object) -> None:
        room = run.ledger.stat().st_size + 2000
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited[1]))

    monkeypatch.setattr(TerminalProgress, "started", fill_the_disk)
    try:
        code, summary, complaint = run.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert (code, summary) == (1, {})
    assert len(complaint.splitlines()) == 1
    assert complaint.startswith(f"hushtune train: {run.ledger}: ")
    monkeypatch.undo()

    before = run.lines()
    code, guarantee, _ = run.command("privacy", str(run.folder), "--json")
    assert (code, guarantee["ledger_ok"]) == (0, True)
    assert len(charges(before)) <= guarantee["steps_charged"] < STEPS
    assert run.train()[0] == 0
    assert run.lines()[: len(before)] == before
    check_finished(run, lost=set(range(STEPS)) - {*releases(run.lines())})
    assert len(releases(run.lines())) >= STEPS - 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_at_any_moment_lose_nothing_but_their_own_release(run: Run):
    before: Lines = []
    for kill in range(20):
        process = run.start_and_stop("charge", 2 * kill)
        process.send_signal(signal.SIGCONT)
        time.sleep(random.uniform(0, 0.01))
        process.kill()
        process.communicate(timeout=PATIENCE)
        lines = run.lines()
        assert lines[: len(before)] == before
        before = lines
    assert run.train()[0] == 0
    lines = run.lines()
    assert lines[: len(before)] == before
    assert len(releases(lines)) >= STEPS - 20
    check_finished(run, lost=set(range(STEPS)) - {*releases(lines)})
