"""Measures one case in a process of its own: `python -m hushtune.bench.worker CASE`.

CASE is JSON, and so is what is printed. A tiny case is run first, so that no import, compilation or
thread pool is counted.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import warnings
from typing import Any

import torch

from hushtune.bench import machine
from hushtune.bench.cases import Case
from hushtune.bench.machine import Stopwatch, Taken
from hushtune.bench.models import DTYPES
from hushtune.bench.workbench import Workbench

#: Forward passes a micro-batch that are timed at most; where more are needed, they are scaled up.
_MOST_PASSES = 16

#: A first-order step takes about as long as so many forward passes.
_BACKWARD = 3

#: Bytes of parameters up to which they are copied to see whether they return to where they were.
_COPIED = 2**30


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long a case may take.

    Attributes:
        repetitions: steps that are timed at most, after one that is not.
        seconds: that they should take together.
        longest: a longer step is not begun, in seconds.
    """

    repetitions: int = 5
    seconds: float = 60.0
    longest: float = 120.0


class Turns:
    """Times a step, then forward passes, and so on in turn; the first step is not counted.

    Attributes:
        steps: what each step took.
        plain: what as many forward passes as a step needs took.
        peak: the most bytes of memory up to the end of the first step.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._watch = Stopwatch(bench.case.device)
        self.steps: list[Taken] = []
        self.plain: list[Taken] = []
        self.peak: int = 0

    def after_step(self, done: int) -> None:
        """Called after each step, with the number of steps done."""
        taken = self._watch.lap()
        if done == 1:
            self.peak = machine.peak(self._bench.case.device)
        else:
            self.steps.append(taken)
            self.plain.append(self._forwards())
        self._watch.lap()

    def _forwards(self) -> Taken:
        """The forward passes that a step needs, without anything else."""
        passes = self._bench.case.passes
        timed = min(passes, _MOST_PASSES)
        self._watch.lap()
        self._bench.plain(timed)
        taken = self._watch.lap()
        return Taken(*(seconds * passes / timed for seconds in taken))


def measure(case: Case, effort: Effort) -> dict[str, Any]:
    """Times and memory of a case, or why it is skipped."""
    _warm_up()
    machine.forget_peak(case.device)
    base = machine.resident(case.device)
    if case.expected_bytes() > machine.free_bytes(case.device):
        return {"skipped": f"needs about {case.expected_bytes() / 2**30:.0f} GiB"}
    bench = Workbench(case)
    machine.forget_peak(case.device)
    bench.plain(1)
    one = machine.seconds(case.device, lambda: bench.plain(1))
    expected = one * case.passes * (_BACKWARD if case.method == "dp-sgd" else 1)
    if expected > effort.longest:
        return {"skipped": f"a step would take about {expected:.0f} s"}
    repetitions = max(1, min(effort.repetitions, int(effort.seconds / (2 * expected))))
    turns = Turns(bench)
    try:
        bench.run(1 + repetitions, turns.after_step)
    except Exception as error:
        if case.method != "dp-sgd":
            raise
        # Opacus does not know every layer; what it says of one it does not know varies.
        return {"skipped": f"Opacus: {type(error).__name__}: {error}"[:120]}
    step, plain = _medians(turns.steps), _medians(turns.plain)
    result = {
        "seconds_per_step": step.wall,
        "forward_seconds": plain.wall,
        "ratio_to_forwards": step.wall / plain.wall,
        # Less troubled by what else runs on the machine; says nothing of a GPU.
        "processor_ratio": step.processor / plain.processor if case.device == "cpu" else None,
        "not_forward_share": 1 - plain.wall / step.wall,
        "repetitions": repetitions,
        "peak_mib": turns.peak / machine.MIB,
        "base_mib": base / machine.MIB,
        "moving_parameters": sum(each.numel() for each in bench.parameters.values()),
        "largest_operation_mib": _largest_operation(bench) / machine.MIB,
    }
    if case.method in ("hushtune", "in-place"):
        result |= _drift(bench)
    if case.method == "hushtune":
        result |= _shares(case, bench, step.wall)
    return result


def _medians(taken: list[Taken]) -> Taken:
    return Taken(*(statistics.median(each) for each in zip(*taken, strict=True)))


def _warm_up() -> None:
    tiny = Case("tiny", tokens=128, length=32, micro_batch_tokens=64)
    for case in (tiny, dataclasses.replace(tiny, method="inference", dtype="bfloat16")):
        Workbench(case).run(2, lambda _: None)


def _largest_operation(bench: Workbench) -> int:
    """Bytes of the moving parameters of the module that has most of its own."""
    moving = {id(parameter) for parameter in bench.parameters.values()}
    return max(
        sum(p.numel() * p.element_size() for p in module.parameters(False) if id(p) in moving)
        for module in bench.task.model.modules()
    )


def _drift(bench: Workbench) -> dict[str, Any]:
    """How many parameters are not where they were after looking along a direction."""
    parameters = list(bench.parameters.values())
    if sum(each.numel() * each.element_size() for each in parameters) > _COPIED:
        return {}
    before = [each.detach().clone() for each in parameters]
    bench.once_round()
    pairs = list(zip(before, parameters, strict=True))
    changed = sum(int((one != other).sum()) for one, other in pairs)
    return {
        "changed_share": changed / sum(each.numel() for each in parameters),
        "largest_change": max(float((one - other).abs().max()) for one, other in pairs),
    }


def _shares(case: Case, bench: Workbench, step: float) -> dict[str, Any]:
    """Bandwidth and arithmetic that a step needs at least, as shares of what the device can do."""
    dtype = DTYPES.get(case.dtype, torch.bfloat16)
    bandwidth, operations = machine.best(case.device, dtype)
    weights = case.shape.bytes(case.dtype)
    moving = sum(each.numel() * each.element_size() for each in bench.parameters.values())
    passes = case.passes * len(bench.batches)
    # A pass reads every weight; one that moves was read and written before. The update reads and
    # writes once.
    read_and_written = passes * (weights + 2 * moving) + 2 * moving
    return {
        "bandwidth_share": read_and_written / step / bandwidth,
        "arithmetic_share": 2 * case.shape.inner * case.tokens * case.passes / step / operations,
        "gib_per_second": bandwidth / 2**30,
        "tera_operations": operations / 1e12,
    }


def main() -> None:
    """Read the case and the effort from the command line and print the result."""
    case, effort = (json.loads(argument) for argument in sys.argv[1:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = measure(Case(**case), Effort(**effort))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
