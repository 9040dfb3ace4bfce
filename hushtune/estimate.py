"""Expected time and memory of a run, from forward passes on public text."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from hushtune.memory import forget_peak, peak_gpu_memory, peak_memory, room
from hushtune.probe import LABEL_VECTORS
from hushtune.session import Session
from hushtune.tasks.dummy_text import dummy_texts
from hushtune.zo.estimators import Move, moves
from hushtune.zo.head_losses import BLOCK_ROWS, HeadLosses
from hushtune.zo.losses import PROBE_CHARGE, MicroBatch, MovedLosses

#: Seconds of two passes from which on a few more are enough to tell what one takes.
_LONG = 1.0

#: Seconds a step takes beside its forward passes: noise, ledger, bookkeeping.
_OVERHEAD = 0.005


class Estimate(NamedTuple):
    """Expected seconds of the steps of a run, and peak memory in MiB.

    Attributes:
        seconds: of all steps.
        peak_mib: resident memory of the process.
        peak_gpu_mib: of tensors on the GPU; None without one.
        kept_outputs: whether what frozen layers return is kept from step to step.
    """

    seconds: float
    peak_mib: int
    peak_gpu_mib: int | None
    kept_outputs: bool


class Load(NamedTuple):
    """What one machine computes of a run.

    Attributes:
        units: that it holds.
        rows: expected in a step.
        steps: of the run.
    """

    units: float
    rows: float
    steps: int

    @property
    def ever_sampled(self) -> float:
        """Units that are expected to be sampled at least once."""
        probability = min(1.0, self.rows / max(self.units, 1.0))
        return self.units * (1 - (1 - probability) ** self.steps)


def estimate(session: Session, *, evaluation_rows: int = 0, load: Load | None = None) -> Estimate:
    """Time a few micro-batches of dummy text and scale them up; no private data is needed.

    The private texts are taken to be about as long as the dummy ones. Peak memory is that of this
    process so far, or that of its passes and of an update, with the texts and what is kept of
    them on top, whichever is more.

    Args:
        evaluation_rows: rows of the public evaluation data.
        load: of this machine; all of the run, if it is left out.
    """
    loaded_mib = peak_memory()
    forget_peak()
    probe, plan, settings = session.probe, session.plan, session.settings
    assert probe is not None, "a resumed session has no probe"
    load = load or Load(plan.population, plan.expected_units, plan.steps)
    batches = list(probe.task.micro_batches(np.arange(probe.task.rows)))
    passes = moves(settings.estimator, plan.directions, settings.perturbation_scale)
    if isinstance(probe.losses, HeadLosses):
        seconds = _head_seconds(session, probe.losses, batches, passes, load)
        # Every text's features are a tensor of their own.
        width = session.parameters[LABEL_VECTORS].shape[1]
        kept = (load.units + evaluation_rows) * (4 * width + 1024)
        keeps = False
    else:
        seconds = _moved_seconds(session, probe.losses, batches, passes, load)
        kept = min(probe.losses.kept.bytes / probe.task.rows * load.units, room())
        keeps = kept > 0
        if session.objective is None or not session.objective.writes:
            _run_every_shape(session, probe.losses, passes)
    # Compiles what an update needs; zeros move nothing.
    session.update().apply(PROBE_CHARGE, [0] * plan.directions)
    texts = (load.units + evaluation_rows) * _bytes_a_text(session)
    on_top = int(kept + texts) >> 20
    return Estimate(seconds, max(loaded_mib, peak_memory() + on_top), peak_gpu_memory(), keeps)


def _run_every_shape(session: Session, losses: MovedLosses, passes: list[Move]) -> None:
    readout = session.loaded.readout
    for shape in session.shapes:
        inputs = dict(readout.collate([readout.dummy] * shape.rows, shape.length))
        labels = torch.zeros(shape.rows, dtype=torch.long, device=inputs["input_ids"].device)
        some = passes[: 1 + shape.directions]
        losses.of_inputs({**inputs, "labels": labels}, some, charge=PROBE_CHARGE)


def _bytes_a_text(session: Session) -> float:
    """Bytes of a text and its tokens in memory, on average over the dummy texts."""
    texts, readout = dummy_texts(16), session.loaded.readout
    sizes = [
        sys.getsizeof(text)
        + sum(
            # A number that is not tiny is an object of its own; so is what holds them.
            sys.getsizeof(sequence) + 200 + (8 + sys.getsizeof(1000)) * len(sequence.ids)
            for sequence in readout.encode(readout.text_of(text))
        )
        for text in texts
    ]
    return sum(sizes) / len(sizes)


def _moved_seconds(
    session: Session,
    losses: MovedLosses,
    batches: list[MicroBatch],
    passes: list[Move],
    load: Load,
) -> float:
    """Frozen layers run once a step, or once and for all where what they return is kept."""
    probe = session.probe
    assert probe is not None
    encoded = 0.0
    if session.keeps_outputs():
        losses.keep(np.arange(probe.task.rows), room())
        encoding = _mean_seconds(lambda batch: losses.frozen_outputs(batch.inputs), batches)
        encoded = encoding * _micro_batches(session, batches, load.units)

    def mean_seconds(some: list[Move]) -> float:
        return _mean_seconds(
            lambda batch: losses.of_inputs(
                batch.inputs, some, charge=PROBE_CHARGE, outputs=losses.kept.outputs(batch.places)
            ),
            batches,
        )

    if any(shape.directions > 1 for shape in session.shapes):
        per_batch = mean_seconds(passes)
    else:
        few = passes[:2]
        one = mean_seconds(few)
        more = passes[: 4 if one > _LONG else 10]
        two = mean_seconds(more)
        each = max(two - one, 0.0) / max(1, len(more) - len(few))
        per_batch = one + each * (len(passes) - len(few))
    per_step = per_batch * _micro_batches(session, batches, load.rows)
    return encoded + load.steps * (per_step + _OVERHEAD)


def _head_seconds(
    session: Session,
    losses: HeadLosses,
    batches: list[MicroBatch],
    passes: list[Move],
    load: Load,
) -> float:
    """Every text is encoded once, when it is first sampled; then a block takes its products."""
    probe = session.probe
    assert probe is not None
    encoding = _mean_seconds(lambda batch: probe.task.features(batch.inputs), batches)
    whole = _mean_seconds(
        lambda batch: losses.of_inputs(batch.inputs, passes, charge=PROBE_CHARGE), batches
    )
    block = max(whole - encoding, 0.0)
    blocks = math.ceil(load.rows / BLOCK_ROWS)
    encoded = encoding * _micro_batches(session, batches, load.ever_sampled)
    return encoded + load.steps * (blocks * block + _OVERHEAD)


def _micro_batches(session: Session, batches: list[MicroBatch], rows: float) -> float:
    """Micro-batches that so many rows need, if their lengths are distributed as in `batches`."""
    total = sum(len(places) for places, _ in batches)
    count = 0.0
    lengths = [inputs["input_ids"].shape[1] for _, inputs in batches]
    for shape in session.shapes:
        here = sum(
            len(batch.places)
            for batch, length in zip(batches, lengths, strict=True)
            if length == shape.length
        )
        share = rows * here / total
        if share:
            count += share / shape.rows + 0.5  # the last micro-batch is half empty on average
    return count


def _mean_seconds(forward: Callable[[MicroBatch], object], batches: list[MicroBatch]) -> float:
    """Mean seconds of a micro-batch, after one that warms up."""
    with torch.inference_mode():
        forward(batches[0])
        start = time.perf_counter()
        for batch in batches:
            forward(batch)
    return (time.perf_counter() - start) / len(batches)
