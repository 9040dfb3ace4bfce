"""What makes a step fast, by counts: passes, layers, kernels and bytes. Never a time."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from hushtune.bench.cases import Case
from hushtune.bench.workbench import Workbench
from hushtune.zo import kernels
from hushtune.zo.estimators import Move

TINY = {"size": "tiny", "tokens": 96, "length": 16, "micro_batch_tokens": 32}  # 3 micro-batches
MICRO_BATCHES = 3


def calls_of(bench: Workbench, module: torch.nn.Module, steps: int) -> int:
    """How often a module runs in so many steps, whatever a run does before its first."""
    count = [0]

    def note(*_) -> None:
        count[0] += 1

    hook = module.register_forward_hook(note)
    try:
        bench.run(steps, lambda _: None)
    finally:
        hook.remove()
    return count[0]


@pytest.mark.parametrize("moving", ["full", "lora"])
@pytest.mark.parametrize(
    ("estimator", "directions", "passes"),
    [("two-sided", 1, 2), ("two-sided", 3, 6), ("one-sided", 3, 4)],
)
def test_a_step_is_so_many_forward_passes(
    moving: str, estimator: str, directions: int, passes: int
):
    case = Case(moving=moving, estimator=estimator, directions=directions, **TINY)  # type: ignore
    assert case.passes == passes
    bench = Workbench(case)
    assert len(bench.batches) == MICRO_BATCHES
    model = bench.task.model
    more = calls_of(bench, model, 3) - calls_of(bench, model, 1)
    assert more == 2 * MICRO_BATCHES * passes


def test_the_yardstick_takes_as_many_passes_as_the_step():
    bench = Workbench(Case(**TINY))
    count = [0]
    bench.task.model.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    bench.plain(bench.case.passes)
    assert count[0] == MICRO_BATCHES * bench.case.passes


@pytest.mark.parametrize("directions", [1, 8])
def test_an_update_is_one_pass_over_every_parameter(
    monkeypatch: pytest.MonkeyPatch, directions: int
):
    bench = Workbench(Case(directions=directions, **TINY))  # type: ignore
    implementation = kernels.implementation(torch.device("cpu"))
    moved: Counter[int] = Counter()
    original = implementation.move

    def move(tensor, *arguments):
        moved[tensor.ctypes.data] += 1
        return original(tensor, *arguments)

    monkeypatch.setattr(implementation, "move", move)
    bench.run(1, lambda _: None)
    assert moved == Counter({parameter.data_ptr(): 1 for parameter in bench.parameters.values()})


def test_frozen_layers_run_once_whatever_the_directions_and_steps():
    def frozen_calls(directions: int, steps: int) -> int:
        bench = Workbench(Case(moving="last-1", directions=directions, **TINY))  # type: ignore
        return calls_of(bench, bench.task.model.model.decoder.layers[0].fc1, steps)

    assert frozen_calls(4, 1) == frozen_calls(1, 1)
    assert frozen_calls(4, 3) == frozen_calls(4, 2)


def peak_bytes(work) -> int:
    """The most bytes that torch's CPU allocator gave out at a time while `work()` ran."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        work()
    events = profile.profiler.kineto_results.events()
    given = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    assert given
    now = most = 0
    for _, change in given:
        now += change
        most = max(most, now)
    return most


def test_scratch_is_bounded_by_the_parameters_of_the_largest_operation():
    bench = Workbench(Case(size="5M", tokens=64, length=32, micro_batch_tokens=64))
    losses = bench.session(1).losses(bench.task)
    (batch,) = bench.batches

    def look(*scales: float) -> int:
        moves = [Move(0, scale) for scale in scales]
        return peak_bytes(lambda: losses.of_inputs(batch.inputs, moves, charge=0))

    look(1e-3)  # whatever is kept from one pass to the next, such as compiled kernels
    largest = bench.case.shape.largest_operation("float32")
    model = bench.case.shape.bytes("float32")
    assert largest < model / 2
    plain = look(0.0, 0.0)
    # Biases and bookkeeping of one operation, in addition to its matrix.
    assert look(1e-3, -1e-3) <= plain + 1.01 * largest


def test_parameters_are_where_they_were_but_not_in_the_textbook_loop():
    from hushtune.bench.worker import _drift

    assert _drift(Workbench(Case(**TINY)))["changed_share"] == 0
    assert _drift(Workbench(Case(method="in-place", **TINY)))["changed_share"] > 0.1  # type: ignore
