"""Where a forward pass at moved parameters spends what a plain one does not.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/overhead.py [--size 22M] [--tokens 1024]

Prints medians of processor milliseconds of one micro-batch: a plain pass, the same through
`MovedLosses` without moving, and moved; how much of the last is writing θ + λz; and that writing
alone, into fresh memory for every parameter and into one scratch buffer for all.
"""

import argparse
import statistics
import time

import torch

from hushtune.bench.cases import Case
from hushtune.bench.models import SIZES
from hushtune.bench.workbench import Workbench
from hushtune.zo.directions import Directions
from hushtune.zo.estimators import Move

AT = {"charge": 0, "direction": 0, "scale": 1e-3}


class Timed:
    """Stands before a function and adds up its processor seconds."""

    def __init__(self, function):
        self._function = function
        self.seconds = 0.0
        self.calls = 0

    def __get__(self, owner, _):
        return lambda *arguments, **named: self._call(owner, *arguments, **named)

    def _call(self, *arguments, **named):
        start = time.process_time()
        result = self._function(*arguments, **named)
        self.seconds += time.process_time() - start
        self.calls += 1
        return result


def milliseconds(functions, repetitions):
    """Median processor milliseconds by name; the functions take turns."""
    times = {name: [] for name in functions}
    for turn in range(repetitions + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if turn:
                times[name].append((time.process_time() - start) * 1e3)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="22M")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    bench = Workbench(Case(options.size, tokens=options.tokens, micro_batch_tokens=options.tokens))
    session = bench.session(1)
    losses, directions = session.losses(bench.task), session.directions
    inputs = bench.batches[0].inputs
    losses.of_inputs(inputs, [Move(0, 1e-3)], charge=0)  # loads the compiled kernels
    writing = Timed(Directions.perturbed)
    Directions.perturbed = writing
    passes = milliseconds(
        {
            "plain pass": lambda: bench.plain(1),
            "not moved": lambda: losses.of_inputs(inputs, [Move(0, 0.0)], charge=0),
            "moved": lambda: losses.of_inputs(inputs, [Move(0, 1e-3)], charge=0),
        },
        options.repetitions,
    )
    each = writing.seconds / (options.repetitions + 1) * 1e3
    print(f"{options.size}, {options.tokens} tokens, milliseconds of processor time")
    for name, taken in passes.items():
        print(f"  {name:<34} {taken:8.1f}")
    print(f"  {'of which writing θ + λz (mean)':<34} {each:8.1f}")
    parameters = bench.parameters
    scratch = torch.empty(max(each.numel() for each in parameters.values()))

    def fresh():
        for name, each in parameters.items():
            directions.perturbed(name, each, **AT)

    def reused():
        for name, each in parameters.items():
            out = scratch[: each.numel()].view(each.shape)
            directions.perturbed(name, each, out=out, **AT)

    alone = {"writing alone, fresh memory": fresh, "writing alone, one buffer": reused}
    for name, taken in milliseconds(alone, options.repetitions).items():
        print(f"  {name:<34} {taken:8.1f}")


if __name__ == "__main__":
    main()
