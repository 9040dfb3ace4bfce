"""Mistakes 12 and 15: examples that change each other's numbers, and steps tried a second time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from insider import Insider, flagged, make_config, new_session, read_data, train_run, watch

from hushtune import run as runs
from hushtune.config import Config
from hushtune.privacy import ledger as ledgers
from hushtune.tasks.batches import Batcher, Shape
from hushtune.tasks.task import TextTask
from hushtune.zo.estimators import moves
from hushtune.zo.losses import MovedLosses

UNITS = 60
SAMPLES = [[0], [1, 5], list(range(7)), list(range(3, UNITS, 4)), list(range(UNITS)), [59, 0, 30]]


def watch_shapes(
    patch: pytest.MonkeyPatch, begun: Callable[[], object] = lambda: True
) -> set[tuple[int, int]]:
    """Collects the shapes of all forward passes since `begun()` is true."""
    shapes: set[tuple[int, int]] = set()
    for name in ("losses", "features"):
        original = getattr(TextTask, name)

        def noted(self, inputs, original=original):
            if begun():
                shapes.add(tuple(inputs["input_ids"].shape))
            return original(self, inputs)

        patch.setattr(TextTask, name, noted)
    return shapes


def of_the_header(header: dict) -> set[tuple[int, int]]:
    """Shapes of forward passes of one direction or of several."""
    shapes = [Shape(**shape) for shape in header["shapes"]]
    return {(each.rows * times, each.length) for each in shapes for times in {1, each.directions}}


def config_of(tune: str, encoder: str, data: str) -> Config:
    return make_config(encoder, data, Path(), tune=tune, directions=2)


def begin_unharmed(tune: str, encoder: str, data: str) -> None:
    """Let the session begin, and be kept, before anything is planted that its probe would find."""
    new_session(config_of(tune, encoder, data), units=UNITS)


def check_alone(tune: str, encoder: str, data: str, patch: pytest.MonkeyPatch) -> None:
    """An example's losses have the same bits whoever else was sampled, in public shapes only."""
    config = config_of(tune, encoder, data)
    session = new_session(config, units=UNITS)
    task = session.task(read_data(config))
    passes = moves("two-sided", 2, 1e-3)
    seen: dict[int, bytes] = {}
    coupled: set[int] = set()
    with patch.context() as context:
        used = watch_shapes(context)
        for rows in SAMPLES:
            losses = session.losses(task).at(np.array(rows), passes, charge=0)  # keeps nothing
            for row, values in zip(rows, losses, strict=True):
                if seen.setdefault(row, values.tobytes()) != values.tobytes():
                    coupled.add(row)
    assert not coupled, "an example's losses depend on who else was sampled"
    assert used <= of_the_header(session.header), (
        "a forward pass has a shape that depends on the sample"
    )


@pytest.mark.parametrize("tune", ["head", "last-1"])
def test_examples_do_not_touch_each_other(tune, encoder_folder, reviews, monkeypatch):
    check_alone(tune, encoder_folder, reviews, monkeypatch)


def small_batches(batcher: Batcher, rows: np.ndarray):
    """As many rows as there are, and as long as the longest of them."""
    shape = batcher._shapes[-1]
    for start in range(0, len(rows), shape.rows):
        places = np.arange(start, min(start + shape.rows, len(rows)))
        examples = [batcher._examples[row] for row in rows[places]]
        longest = max(len(sequence.ids) for example in examples for sequence in example)
        yield places, examples, Shape(len(places), longest)


@pytest.mark.parametrize("tune", ["head", "last-1"])
def test_the_check_flags_batches_of_the_size_of_the_sample(
    tune, encoder_folder, reviews, monkeypatch
):
    begin_unharmed(tune, encoder_folder, reviews)
    monkeypatch.setattr(Batcher, "batches", small_batches)
    with flagged("depends? on"):
        check_alone(tune, encoder_folder, reviews, monkeypatch)


def test_the_check_flags_statistics_of_the_batch(encoder_folder, reviews, monkeypatch):
    losses = TextTask.losses

    def normalised(self, inputs):
        values = losses(self, inputs)
        return values / values.mean()

    begin_unharmed("last-1", encoder_folder, reviews)
    monkeypatch.setattr(TextTask, "losses", normalised)
    with flagged("depend on who else"):
        check_alone("last-1", encoder_folder, reviews, monkeypatch)


def check_retry(seen: Insider, encoder: str, data: str, folder: Path, patch) -> None:
    """Memory runs out in the second step: the run stops, and its charge is spent for good."""
    config = make_config(encoder, data, folder, tune="last-1", directions=2)
    losses = TextTask.losses
    failed = False

    def run_out_of_memory_once(self, inputs):
        nonlocal failed
        if len(seen.sampled) == 2 and not failed:
            failed = True
            raise torch.OutOfMemoryError
        return losses(self, inputs)

    patch.setattr(TextTask, "losses", run_out_of_memory_once)
    used = watch_shapes(patch, begun=lambda: seen.sampled)  # public text is tried in others too
    stopped = False
    try:
        train_run(config)
    except Exception:
        stopped = True
    assert stopped, "the step was tried again"
    record = ledgers.read(folder / runs.LEDGER)
    assert (record.charges, sorted(record.releases)) == (2, [0])
    record = train_run(config)
    assert sorted(record.releases) == [0, 2, 3], "the step was tried again"
    assert used, "nobody was sampled"
    assert used <= of_the_header(record.header), "shapes changed"


def test_a_step_without_memory_is_not_tried_again(encoder_folder, reviews, tmp_path, monkeypatch):
    check_retry(watch(monkeypatch), encoder_folder, reviews, tmp_path, monkeypatch)


def test_the_check_flags_a_retry_with_smaller_batches(
    encoder_folder, reviews, tmp_path, monkeypatch
):
    at = MovedLosses.at

    def at_or_in_halves(self, rows, moves, *, charge: int) -> np.ndarray:
        try:
            return at(self, rows, moves, charge=charge)
        except torch.OutOfMemoryError:
            halves = np.array_split(rows, 2)
            return np.concatenate([at(self, half, moves, charge=charge) for half in halves])

    monkeypatch.setattr(MovedLosses, "at", at_or_in_halves)
    with flagged("tried again"):
        check_retry(watch(monkeypatch), encoder_folder, reviews, tmp_path, monkeypatch)
