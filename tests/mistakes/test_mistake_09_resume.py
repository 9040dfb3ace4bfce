"""Mistake 9: resuming forgets what was spent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from insider import Insider, flagged, make_config, new_session, read_data, watch

from hushtune import run as runs
from hushtune.config import Config
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.ledger import Ledger
from hushtune.trainer import train

STEPS = 4


class PowerCut(SystemExit):
    """Nothing after it runs."""


def train_once(config: Config, ledger_class: type[Ledger], *, cut_after: int | None = None) -> None:
    """A run, or the rest of one, from opening the ledger to the end or the power cut."""
    data = read_data(config)
    session = new_session(config, units=data.units)
    done = 0

    def after_step(_: int) -> None:
        nonlocal done
        done += 1
        if done == cut_after:
            raise PowerCut

    with ledger_class(Path(config.output) / runs.LEDGER, session.header) as ledger:
        train(session, data, runs.open_steps(ledger, data), after_step=after_step)


def check(
    seen: Insider,
    encoder: str,
    data: str,
    folder: Path,
    patch: pytest.MonkeyPatch,
    ledger_class: type[Ledger] = Ledger,
) -> None:
    """Three attempts, two of them cut off: at no time are there more samples than charges."""
    config = make_config(encoder, data, folder, steps=STEPS)
    path = folder / runs.LEDGER

    def compare() -> None:
        charges = ledgers.read(path).charges
        assert len(seen.sampled) <= charges <= STEPS, "a step was forgotten"

    with pytest.raises(PowerCut):
        train_once(config, ledger_class, cut_after=1)
    compare()
    with patch.context() as context:
        context.setattr(Boundary, "release", _cut)
        with pytest.raises(PowerCut):
            train_once(config, ledger_class)  # between the sample and its release
    compare()
    for _ in range(2):  # the second time nothing is left to do
        train_once(config, ledger_class)
        compare()
    record = ledgers.read(path)
    assert record.charges == STEPS
    assert sorted(record.releases) == [0, 2, 3], "a charge was used twice"
    assert len(seen.sampled) == STEPS
    assert len(seen.released) == STEPS - 1


def _cut(*_: object) -> None:
    raise PowerCut


def test_no_charge_is_forgotten_or_used_twice(encoder_folder, reviews, tmp_path, monkeypatch):
    check(watch(monkeypatch), encoder_folder, reviews, tmp_path, monkeypatch)


class StartsAtZero(Ledger):
    """A new accountant in each process."""

    def __init__(self, path: Path, header: dict) -> None:
        Path(path).unlink(missing_ok=True)
        super().__init__(path, header)


class ForgetsLostSteps(Ledger):
    """Counts the steps that were completed."""

    def __init__(self, path: Path, header: dict) -> None:
        if Path(path).exists():
            *lines, last = Path(path).read_bytes().splitlines(keepends=True)
            if "charge" not in json.loads(last):
                lines.append(last)
            Path(path).write_bytes(b"".join(lines))
        super().__init__(path, header)


@pytest.mark.parametrize("fault", [StartsAtZero, ForgetsLostSteps])
def test_the_check_flags(fault, encoder_folder, reviews, tmp_path, monkeypatch):
    with flagged("a step was forgotten"):
        check(watch(monkeypatch), encoder_folder, reviews, tmp_path, monkeypatch, fault)


def test_the_check_flags_redoing_a_lost_step(encoder_folder, reviews, tmp_path, monkeypatch):
    """The release that was lost is made up for under its old charge, with a new sample."""

    class Redoes(Ledger):
        def charge(self) -> int:
            last = self.charges - 1
            return last if last >= 0 and last not in self.releases else super().charge()

    with flagged("a step was forgotten|used twice"):
        check(watch(monkeypatch), encoder_folder, reviews, tmp_path, monkeypatch, Redoes)
