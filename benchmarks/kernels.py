"""Public directions against a plain copy and `axpy` of the same tensor, in one process.

    python benchmarks/kernels.py [--device cpu] [--threads 1 2] [--distributions rademacher]

Prints Markdown: medians in nanoseconds a parameter, and their ratios. `write` is θ + λz into
scratch, against a copy; `move` is the update θ + Σ_k g_k z_k in place, for one direction against
`axpy` and for 64 divided by 64; `round` is stochastic rounding alone. `move` of a 16-bit parameter
includes its stochastic rounding, which takes 16 random bits an entry whatever the number of
directions.
"""

import argparse
import statistics
import time

import torch

from hushtune.zo.directions import DISTRIBUTIONS, Directions

SIZES = {"MiniLM": 22_713_216, "125 M": 125_000_000}
DTYPES = (torch.float32, torch.bfloat16)
MANY = 64


def nanoseconds(functions, entries, device, repetitions):
    """The median of each function; they take turns, so that a slow moment is shared."""
    times = [[] for _ in functions]
    for turn in range(repetitions + 1):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first compiles, and touches memory for the first time
                kept.append(time.perf_counter() - start)
    return [statistics.median(kept) / entries * 1e9 for kept in times]


def measure(entries, dtype, distribution, device, repetitions):
    directions = Directions(1, {"w": (entries,)}, distribution)
    parameter = torch.randn(entries, device=device).to(dtype)
    other, scratch = parameter.clone(), torch.empty_like(parameter)
    at = {"charge": 0, "direction": 0, "scale": 1e-3}
    copy, write, axpy, move = nanoseconds(
        [
            lambda: scratch.copy_(parameter),
            lambda: directions.perturbed("w", parameter, out=scratch, **at),
            lambda: parameter.add_(other, alpha=1e-6),
            lambda: directions.move("w", parameter, [1e-6], charge=1),
        ],
        entries,
        device,
        repetitions,
    )
    (many,) = nanoseconds(
        [lambda: directions.move("w", parameter, [1e-6] * MANY, charge=1)],
        entries * MANY,
        device,
        2 if device.type == "cpu" else repetitions,
    )
    rounding = ""
    if dtype != torch.float32:
        del other, scratch
        wide = parameter.float()
        (taken,) = nanoseconds(
            [lambda: directions.stochastic_round("w", wide, dtype, charge=1)],
            entries,
            device,
            repetitions,
        )
        rounding = f"{taken:.2f}"
    return (
        f"{copy:.3f} | {write:.3f} | {write / copy:.2f} | {axpy:.3f} | {move:.3f} | "
        f"{move / axpy:.2f} | {many:.3f} | {rounding}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--distributions", nargs="+", choices=DISTRIBUTIONS, default=["rademacher"])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    print(
        "| threads | size | dtype | distribution | copy | write | ÷ copy | axpy | move | ÷ axpy "
        f"| move, {MANY} directions, each | round |\n|{'---|' * 12}"
    )
    for threads in options.threads:
        torch.set_num_threads(threads)
        for size in options.sizes:
            for dtype in DTYPES:
                for distribution in options.distributions:
                    row = measure(
                        SIZES[size], dtype, distribution, options.device, options.repetitions
                    )
                    name = str(dtype).removeprefix("torch.")
                    print(f"| {threads} | {size} | {name} | {distribution} | {row} |", flush=True)


if __name__ == "__main__":
    main()
