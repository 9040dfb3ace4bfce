"""Killed hundreds of times at moments of no choosing, a run loses nothing but single releases.

Every child is killed at a moment drawn uniformly from the time that the rest of its run would take:
while it opens, charges, samples, computes, writes, applies or saves. Half of them write the ledger
in pieces. What is looked at afterwards is what the next one finds, and nobody repairs anything in
between.
"""

from __future__ import annotations

import copy
import fcntl
import functools
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from conftest import write_reviews
from warm_process import FAULTS, take_back_the_last_step

from hushtune import run as runs
from hushtune import session as sessions
from hushtune.guarantee import describe_guarantee
from hushtune.models.load import hash_tensors
from hushtune.privacy import ledger as ledgers

STEPS = 30


class WarmProcess:
    """Trains in a folder, in a child that is killed after some time; see `warm_process`."""

    def __init__(self, folder: Path, encoder: str, tune: str, directions: int) -> None:
        self.folder = folder
        config = {
            "model": {"name": encoder, "tune": tune},
            "data": {"train": write_reviews(folder / "train.jsonl", 60), "max_length": 32},
            "task": {"labels": {"negative": "it was terrible", "positive": "it was great"}},
            "method": {"steps": STEPS, "batch": 12.0, "directions": directions},
            "privacy": {"epsilon": 4.0},
            "output": ".",
        }
        (folder / "config.json").write_text(json.dumps(config))
        one_thread = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        self._complaints = folder / "complaints"
        with self._complaints.open("w") as complaints:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("warm_process.py")), "config.json"],
                cwd=folder,
                env={**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )

    def measure(self) -> None:
        """Find out how long runs take that are not killed."""
        assert self._answer() == "ready\n"
        self._seconds = {
            (load, split): self._measure(load=load, split=split)
            for load, split in product((False, True), repeat=2)
        }

    def train(self, folder: Path, *, seconds: float | None, **how: object) -> bool:
        """Whether the child was killed before it was done."""
        request = {"folder": str(folder), "seconds": seconds, "fault": "", **how}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self._answer())["killed"]

    def rest(self, charges: int, *, load: bool, split: bool) -> float:
        """About how many seconds a run takes from here."""
        whole, last_step = self._seconds[load, split]
        return last_step + (whole - last_step) * (STEPS - charges) / STEPS

    def _measure(self, *, load: bool, split: bool) -> tuple[float, float]:
        """Seconds of a whole run, and of one with a single step left."""
        folder = self.folder / f"measured-{load}-{split}"
        folder.mkdir()
        start = time.monotonic()
        self.train(folder, seconds=None, load=False, split=split)
        whole = time.monotonic() - start
        take_back_the_last_step(folder)
        start = time.monotonic()
        self.train(folder, seconds=None, load=load, split=split)
        return whole, time.monotonic() - start

    def _answer(self) -> str:
        answer = self.process.stdout.readline()
        assert answer, self._complaints.read_text()
        return answer


@functools.cache
def resumed(header: str) -> sessions.Session:
    return sessions.resume(json.loads(header))


class Witness:
    """Sees one run folder after each kill, and remembers."""

    def __init__(self, folder: Path) -> None:
        self.charges = 0
        self._path = folder / runs.LEDGER
        self._seen = folder / "seen"
        self._whole = b""
        self._releases: list[int] = []
        self._states: list[str] = []

    def check(self) -> str:
        """All that has to hold; returns where in the run the kill fell."""
        known = len(self._releases)
        content = self._path.read_bytes() if self._path.exists() else b""
        if b"\n" not in content:
            assert not self._whole, "the ledger is gone"
            assert not any(self._notes()), "something was done without a ledger"
            return "within the header" if content else "before the header"
        self._lock()
        whole, end, torn = content.rpartition(b"\n")
        assert (whole + end).startswith(self._whole), "a line is gone"
        self._whole = whole + end
        header, *lines = [json.loads(line) for line in self._whole.splitlines()]
        self._check_lines(lines)
        self._ask_for_the_guarantee()
        self._replay(header["header"], [line for line in lines if "release" in line])
        self._compare_parameters(known)
        return self._moment(lines, torn)

    def check_finished(self) -> None:
        self.check()
        assert self.charges == STEPS
        summary = json.loads(self._path.with_name("summary.json").read_text())
        assert summary["moved_sha256"] == self._states[-1]

    def _lock(self) -> None:
        with self._path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _check_lines(self, lines: list[dict]) -> None:
        """Charges are counted through, and a release follows its charge; without the package."""
        charged = [line["charge"] for line in lines if "charge" in line]
        assert charged == list(range(len(charged)))
        self._releases = []
        for before, line in zip([{}, *lines], lines, strict=False):
            if "release" in line:
                assert before.get("charge") == line["release"], "a release without a charge"
                self._releases.append(line["release"])

    def _ask_for_the_guarantee(self) -> None:
        """What `hushtune privacy` says."""
        guarantee = describe_guarantee(ledgers.read(self._path))
        assert guarantee["steps_charged"] >= self.charges, "a charge is gone"
        assert guarantee["steps_released"] == len(self._releases)
        assert guarantee["epsilon_of_charged_steps"] <= guarantee["epsilon"] <= 4
        self.charges = guarantee["steps_charged"]

    def _replay(self, header: dict, released: list[dict]) -> None:
        """The SHA-256 of the parameters after each release, from the ledger alone."""
        if not self._states:
            self._session = copy.deepcopy(resumed(json.dumps(header)))
            self._update = self._session.update()
            self._states = [hash_tensors(self._session.parameters.items())]
        for line in released[len(self._states) - 1 :]:
            self._update.apply(line["release"], line["values"])
            self._states.append(hash_tensors(self._session.parameters.items()))

    def _compare_parameters(self, known: int) -> None:
        """What every process had is what the ledger leads to, bit for bit.

        Args:
            known: number of releases in the ledger when the last process began.
        """
        sampled = []
        for notes in self._notes():
            applied = []
            for event, charge, state in notes:
                if event == "apply":
                    applied.append(int(charge))
                    assert applied == self._releases[: len(applied)], "not the ledger's releases"
                else:
                    sampled.append(int(charge))
                assert state == self._states[len(applied)], "not the ledger's parameters"
        assert len(sampled) == len({*sampled}), "two samples for one charge"
        assert all(0 <= charge < self.charges for charge in sampled), "a sample without a charge"
        events = [event for event, _, _ in self._notes()[-1]]
        if "sample" in events:
            assert events.index("sample") == known, "it did not go on where the last one was"

    def _notes(self) -> list[list[list[str]]]:
        """What each process noted: event, charge, SHA-256 of the parameters."""
        processes = self._seen.read_text().split("begin\n")[1:]
        return [[note.split() for note in process.splitlines()] for process in processes]

    def _moment(self, lines: list[dict], torn: bytes) -> str:
        if torn:
            return "within a release" if torn.startswith(b'{"r') else "within a charge"
        if lines and "charge" in lines[-1]:
            return "between charge and release"
        return "after the last step" if self.charges == STEPS else "before a charge"


def kill_in_new_folders(
    warm: WarmProcess, folder: Path, kills: int, *, fault: str = ""
) -> Iterator[tuple[bool, str]]:
    """Whether the ledger was written in pieces, and where the kill fell; checks everything.

    When a run is complete, there is another one.
    """
    draw = random.Random()
    begun = done = 0
    while True:
        run = folder / str(begun)
        run.mkdir()
        begun += 1
        witness = Witness(run)
        killed = True
        while killed:
            # Without a ledger a run would begin with a probe, which takes longer than the rest.
            how = {"load": witness.charges > 0 and draw.random() < 0.25, "split": done % 2 == 0}
            seconds = draw.uniform(0, warm.rest(witness.charges, **how))
            killed = warm.train(run, seconds=seconds, fault=fault, **how)
            if not killed:
                witness.check_finished()
                break
            moment = witness.check()
            print(f"run {run.name}: {how} {seconds:.4f} s, {witness.charges} charges, {moment}")
            yield how["split"], moment
            done += 1
            if done == kills:
                return


def warm_process(folder: Path, encoder: str, **method) -> Iterator[WarmProcess]:
    warm = WarmProcess(folder, encoder, **method)
    with warm.process:
        try:
            warm.measure()
            yield warm
        finally:
            warm.process.kill()


@pytest.fixture(scope="module")
def warm(encoder_folder, tmp_path_factory) -> Iterator[WarmProcess]:
    yield from warm_process(
        tmp_path_factory.mktemp("warm"), encoder_folder, tune="head", directions=4
    )


@pytest.fixture(scope="module")
def warm_lora(encoder_folder, tmp_path_factory) -> Iterator[WarmProcess]:
    yield from warm_process(
        tmp_path_factory.mktemp("warm"), encoder_folder, tune="lora", directions=2
    )


def check_kills(warm: WarmProcess, folder: Path, kills: int) -> None:
    moments = Counter(kill_in_new_folders(warm, folder, kills))
    for (split, moment), times in sorted(moments.items()):
        print(f"{times:4}  {moment}{', in pieces' * split}")
    # Written in pieces, lines take a good part of the time: when one kill in six falls there, a
    # hundred kills miss them all once in 10⁸ times.
    assert moments[True, "within a charge"] + moments[True, "within a release"]
    assert moments[True, "between charge and release"]


def test_two_hundred_kills_lose_nothing_but_releases(warm: WarmProcess, tmp_path: Path):
    check_kills(warm, tmp_path, 200)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_hundred_kills_of_a_run_that_trains_an_adapter(warm_lora, tmp_path: Path):
    check_kills(warm_lora, tmp_path, 300)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_flags(warm: WarmProcess, tmp_path: Path, fault: str):
    with pytest.raises(AssertionError, match=FAULTS[fault].because):
        list(kill_in_new_folders(warm, tmp_path, 100, fault=fault))
