"""Public directions against a plain copy and `axpy`, over sizes, formats and threads.

    python benchmarks/kernels.py [--device cpu] [--threads 1 2] [--distributions rademacher]

Prints Markdown: medians in nanoseconds a parameter, and their ratios; see `hushtune.bench.kernels`.
"""

import argparse

import torch

from hushtune.bench.kernels import MANY, measure
from hushtune.zo.directions import DISTRIBUTIONS

SIZES = {"MiniLM": 22_713_216, "125 M": 125_000_000}
DTYPES = (torch.float32, torch.bfloat16)
COLUMNS = ("copy", "add", "write", "write_to_copy", "write_to_add")
COLUMNS += ("axpy", "move", "move_to_axpy", "move_many", "round")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
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
                    cells = [f"{row[name]:.3f}" if name in row else "" for name in COLUMNS]
                    print(
                        f"| {threads} | {size} | {row['dtype']} | {distribution} | "
                        + " | ".join(cells)
                        + " |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
