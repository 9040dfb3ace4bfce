"""Public directions against a plain copy and `axpy` of the same tensor, in one process.

`write` is θ + λz into scratch, against a copy. A copy of much memory goes past the caches, where
what is multiplied next had better be, so torch's `add` of one number is there as well. `move` is
the update θ + Σ_k g_k z_k in place, for one direction against `axpy` and for 64 divided by 64;
`round` is stochastic rounding alone. `move` of a 16-bit parameter includes its stochastic rounding,
which takes 16 random bits an entry whatever the number of directions.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hushtune.bench import machine
from hushtune.zo.directions import Directions

MANY = 64

#: As many parameters as MiniLM-L6 has.
ENTRIES = 22_713_216


def measure(
    entries: int, dtype: torch.dtype, distribution: str, device: str, repetitions: int
) -> dict[str, Any]:
    """Medians in nanoseconds a parameter, and their ratios."""
    directions = Directions(1, {"w": (entries,)}, distribution)
    parameter = torch.randn(entries, device=device).to(dtype)
    other, scratch = parameter.clone(), torch.empty_like(parameter)
    copy, add, write, axpy, move = nanoseconds(
        [
            lambda: scratch.copy_(parameter),
            lambda: torch.add(parameter, 1.0, out=scratch),
            lambda: directions.perturbed(
                "w", parameter, out=scratch, charge=0, direction=0, scale=1e-3
            ),
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
        2 if device == "cpu" else repetitions,
    )
    row: dict[str, Any] = {
        "entries": entries,
        "dtype": str(dtype).removeprefix("torch."),
        "distribution": distribution,
        "threads": torch.get_num_threads(),
        "copy": copy,
        "add": add,
        "write": write,
        "write_to_copy": write / copy,
        "write_to_add": write / add,
        "axpy": axpy,
        "move": move,
        "move_to_axpy": move / axpy,
        "move_many": many,
    }
    if dtype != torch.float32:
        del other, scratch
        wide = parameter.float()
        (row["round"],) = nanoseconds(
            [lambda: directions.stochastic_round("w", wide, dtype, charge=1)],
            entries,
            device,
            repetitions,
        )
    return row


def nanoseconds(
    functions: Sequence[Callable[[], object]], entries: int, device: str, repetitions: int
) -> list[float]:
    """The median of each function; they take turns, so that a slow moment is shared."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(repetitions + 1):
        for function, kept in zip(functions, times, strict=True):
            taken = machine.seconds(device, function)
            if turn:  # the first compiles, and touches memory for the first time
                kept.append(taken)
    return [statistics.median(kept) / entries * 1e9 for kept in times]
