"""Real processes, killed in the middle of a run: the same command goes on, and no charge is lost.

The moment of a kill is chosen by watching the ledger grow. A kill between a charge and its release
loses that release for good: it is never drawn again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hushtune.cli import main

STEPS = 60

#: A process imports torch before it does anything, on a machine that may be busy.
PATIENCE = 180


class Run:
    """A run folder and the processes that train in it."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self._arguments = list(arguments)
        self.folder = folder
        self.ledger = folder / "ledger.jsonl"

    def start(self, *flags: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "hushtune", "train", *self._arguments, *flags, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def finish(self) -> None:
        process = self.start()
        _, complaint = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, complaint

    def stop(
        self, process: subprocess.Popen[str], when: Callable[[], bool], how: int = signal.SIGKILL
    ) -> tuple[str, str]:
        """Send a signal as soon as something holds, and wait for the end."""
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and not when():
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.0002)
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(how)
        return process.communicate(timeout=PATIENCE)

    def lines(self) -> list[dict]:
        """The whole lines of the ledger."""
        if not self.ledger.exists():
            return []
        return [json.loads(line) for line in self.ledger.read_bytes().split(b"\n")[:-1]]

    def charges(self) -> int:
        return self.ledger.read_bytes().count(b'{"charge"') if self.ledger.exists() else 0

    def command(self, *arguments: str, capsys) -> tuple[int, dict, str]:
        """Exit code, JSON and complaint of a command in this process."""
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--json"])
        shown = capsys.readouterr()
        return exit_.value.code or 0, json.loads(shown.out or "{}"), shown.err


@pytest.fixture
def run(run_arguments: list[str], tmp_path: Path) -> Run:
    flags = ["--method.steps", str(STEPS)]
    return Run([*run_arguments, *flags], tmp_path / "run")


def without_release(lines: list[dict]) -> list[int]:
    released = {line["release"] for line in lines if "release" in line}
    return [line["charge"] for line in lines if "charge" in line and line["charge"] not in released]


def check_finished(run: Run, lost: list[int], capsys) -> None:
    """The run is complete, tells the truth about its budget, and is what its ledger says."""
    lines = run.lines()
    assert [line["charge"] for line in lines if "charge" in line] == list(range(STEPS))
    assert without_release(lines) == lost

    code, guarantee, _ = run.command("privacy", str(run.folder), capsys=capsys)
    assert (code, guarantee["ledger_ok"]) == (0, True)
    assert guarantee["steps_charged"] == guarantee["steps"] == STEPS
    assert guarantee["steps_released"] == STEPS - len(lost)
    assert guarantee["epsilon"] == json.loads((run.folder / "summary.json").read_text())["epsilon"]
    assert guarantee["epsilon"] == guarantee["epsilon_of_charged_steps"]
    assert 3.9 < guarantee["epsilon"] <= 4

    again = run.folder.parent / "again"
    code, _, complaint = run.command(
        "replay", str(run.ledger), "--out", str(again), capsys=capsys
    )
    assert code == 0, complaint
    files = [path for path in (run.folder / "model").rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    for path in files:
        assert path.read_bytes() == (again / path.relative_to(run.folder)).read_bytes(), path.name


def test_killed_twice_the_same_command_goes_on_and_finishes(run: Run, capsys):
    draw = random.Random()
    stopped_after: list[int] = []
    for some in (3, 25):
        # Polling sees the charge; a step takes a few milliseconds from there.
        delay = draw.choice([0, 0.001, 0.003])
        run.stop(run.start(), lambda some=some, delay=delay: run.charges() >= some and not
                 time.sleep(delay))
        stopped_after.append(len(run.lines()))
        before = run.lines()
        assert some <= run.charges() < STEPS
    lost = without_release(before)
    run.finish()
    assert run.lines()[: len(before)] == before
    check_finished(run, lost, capsys)

    # Finished, it stays as it is, and its folder takes no other run.
    ledger = run.ledger.read_bytes()
    run.finish()
    assert run.ledger.read_bytes() == ledger


