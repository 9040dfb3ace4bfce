"""What the tests of known mistakes share: short runs, and a view of what nobody else may see.

A person outside sees a run folder and what is printed. An insider also sees what goes into the
boundary. Tests compare the two: what the insider saw may not be found outside.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hushtune import run as runs
from hushtune import session as sessions
from hushtune.config import (
    Config,
    DataConfig,
    MethodConfig,
    ModelConfig,
    PrivacyConfig,
    TaskConfig,
    from_values,
)
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.boundary import Boundary
from hushtune.privacy.ledger import Ledger, Record
from hushtune.privacy.sampling import PoissonSampler, RandomBytes
from hushtune.privacy.steps import PrivateSteps
from hushtune.session import Session
from hushtune.tasks.data import LabelledText, read_labelled_text
from hushtune.trainer import train

LABELS = {"negative": "it was terrible", "positive": "it was great"}


class Silent:
    """Progress that shows nothing."""

    def started(self, session: Session, charges: int) -> None: ...

    def stepped(self, charges: int) -> None: ...

    def evaluated(self, name: str, accuracy: float) -> None: ...


def make_config(
    encoder: str, data: str, output: Path, *, tune: str = "head", **method: Any
) -> Config:
    """A short private run. Laplace noise, because its calibration is a mere formula."""
    mechanism = method.pop("mechanism", "laplace")
    unit = method.pop("unit", None)
    settings = {"directions": 4, "steps": 4, "batch": 12.0} | method
    return Config(
        model=ModelConfig(name=encoder, tune=tune),
        data=DataConfig(train=data, max_length=32, unit=unit),
        task=TaskConfig(labels=LABELS),
        method=MethodConfig(**settings),
        privacy=PrivacyConfig(epsilon=4.0, mechanism=mechanism),
        output=str(output),
    )


def train_folder(config: Config) -> Record:
    """The whole of a run, as the command line does it; returns what its ledger says."""
    runs.train(config, Silent())
    return ledgers.read(Path(config.output) / runs.LEDGER)


def read_data(config: Config) -> LabelledText:
    """The private data of a configuration."""
    return read_labelled_text(config.data.train, config.data, config.task, with_units=True)


def new_session(config: Config, *, units: int) -> Session:
    """A session in the state before its first step; loading and probing are done once for all."""
    config = dataclasses.replace(
        config, output="", data=dataclasses.replace(config.data, train="train.jsonl")
    )
    return copy.deepcopy(_session(json.dumps(config.to_json()), units))


@functools.cache
def _session(config: str, units: int) -> Session:
    return sessions.begin(from_values(json.loads(config)), units=units)


def train_run(config: Config) -> Record:
    """The trainer on its own, as a run calls it; returns what the ledger says."""
    data = read_data(config)
    session = new_session(config, units=data.units)
    path = Path(config.output) / runs.LEDGER
    with Ledger(path, session.header) as ledger:
        train(session, data, runs.open_steps(ledger, data))
    return ledgers.read(path)


def train_without_noise(
    config: Config,
    *,
    batches: Sequence[Sequence[int]] | None = None,
    data: LabelledText | None = None,
) -> tuple[Session, Record]:
    """The trainer on its own, with no noise and, where given, these units in the steps' batches.

    What was replaced makes the run not private, and its ledger says so.
    """
    data = data or read_data(config)
    session = new_session(config, units=data.units)
    session.header["private"] = False
    path = Path(config.output) / runs.LEDGER
    random_bytes = None if batches is None else bytes_that_draw(data.units, batches)
    with Ledger(path, session.header) as ledger:
        steps = PrivateSteps(ledger, units=data.units, random_bytes=random_bytes, add_noise=list)
        train(session, data, steps)
    return session, ledgers.read(path)


def bytes_that_draw(units: int, batches: Sequence[Sequence[int]]) -> RandomBytes:
    """A source of bytes that makes a sampler take the given units in turn."""
    remaining = [set(batch) for batch in batches]

    def bytes_of_next_batch(_: int) -> bytes:
        taken = remaining.pop(0)
        draws = [0 if unit in taken else 2**32 - 1 for unit in range(units)]
        return np.array(draws, dtype=np.uint32).tobytes()

    return bytes_of_next_batch


@dataclass
class Insider:
    """What went into the boundary and what came out, step by step."""

    scalars: list[np.ndarray] = field(default_factory=list)
    units: list[np.ndarray] = field(default_factory=list)
    sampled: list[np.ndarray] = field(default_factory=list)
    released: list[tuple[int, ...]] = field(default_factory=list)
    plans: list[Any] = field(default_factory=list)


def watch(monkeypatch: pytest.MonkeyPatch) -> Insider:
    """Start to record; plant faults before, so that they are seen too."""
    seen = Insider()
    release, sample = Boundary.release, PoissonSampler.sample

    def recorded_release(
        self: Boundary, scalars: np.ndarray, unit_of_row: np.ndarray
    ) -> tuple[int, ...]:
        seen.scalars.append(scalars.copy())
        seen.units.append(unit_of_row.copy())
        released = release(self, scalars, unit_of_row)
        seen.released.append(released)
        return released

    def recorded_sample(self: PoissonSampler) -> np.ndarray:
        sampled = sample(self)
        seen.sampled.append(sampled.copy())
        return sampled

    monkeypatch.setattr(Boundary, "release", recorded_release)
    monkeypatch.setattr(PoissonSampler, "sample", recorded_sample)
    return seen


def flagged(because: str) -> Any:
    """Expects the check inside to fail, and with these words: a fault was planted before."""
    return pytest.raises(AssertionError, match=because)
