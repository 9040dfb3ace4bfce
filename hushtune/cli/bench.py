"""`hushtune bench [--quick] [--sizes …] [--tokens N] [--sweep] [--device cpu|cuda]`"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hushtune.cli.arguments import parse_flags


@dataclass(frozen=True)
class Bench:
    """What a step costs beside the forward passes it needs, with models of random weights."""

    sizes: tuple[str, ...] = ()
    """Of models: 5M, 22M, 125M, …; empty: these three (cuda: 1.3B to 66B, and 175B in NF4)."""
    tokens: int = 4096
    """Of a step, all texts together."""
    length: int = 128
    """Of a text, in tokens."""
    micro_batch_tokens: int | None = None
    """Of a forward pass; none: as train chooses where there is memory enough (--quick: 1024)."""
    directions: tuple[int, ...] = (1, 8, 64)
    """K."""
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16", "nf4"] = "float32"
    """Of the weights, where --sizes are given; nf4 goes with adapters."""
    repetitions: int = 5
    """Steps that are timed at most."""
    seconds: float = 60.0
    """That the steps of a case should take."""
    longest: float = 120.0
    """Cases whose step would take longer, in seconds, are skipped."""
    quick: bool = False
    """A few cases with short steps: about two minutes."""
    sweep: bool = False
    """Cost against tokens, micro-batch, text length, directions and parameters as well."""
    out: str | None = None
    """File for the result, as JSON."""
    json: bool = False
    """Print one line for machines."""


def run(arguments: Sequence[str]) -> int:
    """Measure, and show a table."""
    options = parse_flags(Bench, arguments, prog="hushtune bench")
    _require(options)
    from hushtune.bench import cases, machine
    from hushtune.bench.tables import kernel_table, step_table
    from hushtune.files import write_json
    from hushtune.report.words import console

    result: dict[str, Any] = {
        "command": shlex.join(["hushtune", "bench", *arguments]),
        "machine": machine.describe(options.device),
    }

    def keep() -> None:
        """Write what there is, so that an interruption loses one case."""
        if options.out is not None:
            write_json(Path(options.out), result)

    runner = _runner(options)
    result["kernels"] = _kernels(options)
    result["rows"] = []
    for row in runner.rows(_cases(options)):
        result["rows"].append(row)
        keep()
    if options.sweep:
        size = options.sizes[0] if options.sizes else "5M"
        result["sweep"] = {}
        for what, some in cases.sweep(size, options.device).items():
            result["sweep"][what] = list(runner.rows(some))
            keep()
    keep()
    if options.json:
        print(json.dumps(result))
        return 0
    console.print(step_table(result))
    console.print(kernel_table(result))
    return 0


def _require(options: Bench) -> None:
    """Refuse what cannot be measured.

    Raises:
        ValueError: naming the option and what is accepted.
    """
    import torch

    from hushtune.bench.models import SIZES
    from hushtune.privacy.plan import require

    for size in options.sizes:
        require(size in SIZES, "sizes", size, f"among {', '.join(SIZES)}")
    for name in ("tokens", "length", "micro_batch_tokens", "repetitions"):
        value = getattr(options, name)
        require(value is None or value >= 1, name, value, "at least 1")
    require(options.length >= 3, "length", options.length, "at least 3")
    require(all(k >= 1 for k in options.directions), "directions", options.directions, "positive")
    for size in options.sizes or ("125M",):
        most = SIZES[size].positions
        require(options.length <= most, "length", options.length, f"at most {most} for {size}")
    if options.device == "cuda":
        require(torch.cuda.is_available(), "device", "cuda", "cpu; torch finds no CUDA device here")


def _cases(options: Bench) -> list[Any]:
    from hushtune.bench import cases

    common = {"length": options.length, "micro_batch_tokens": options.micro_batch_tokens}
    if options.quick and not options.sizes:
        return cases.quick(device=options.device, tokens=min(options.tokens, 1024), **common)
    common["tokens"] = options.tokens
    if options.device == "cuda" and not options.sizes:
        return cases.large(options.directions, **common)
    return cases.table(
        options.sizes or ("5M", "22M", "125M"),
        options.directions,
        device=options.device,
        dtype=options.dtype,
        **common,
    )


def _runner(options: Bench) -> Any:
    """Runs cases and says on the error stream which one it is at."""
    from rich.console import Console

    from hushtune.bench.runner import Runner
    from hushtune.bench.worker import Effort

    effort = Effort(options.repetitions, options.seconds, options.longest)
    if options.quick:
        effort = Effort(repetitions=3, seconds=min(5.0, options.seconds), longest=5.0)
    console = Console(stderr=True, highlight=False, quiet=options.json)

    def tell(case: Any) -> None:
        console.print(
            f"[dim]measuring[/dim] {case.name}  [dim]{case.tokens} tokens a step, "
            f"{case.micro_batch_tokens} a pass, {case.length} a text[/dim]"
        )

    return Runner(effort, tell)


def _kernels(options: Bench) -> list[dict[str, Any]]:
    import torch

    from hushtune.bench.kernels import ENTRIES, measure

    repetitions = 3 if options.quick else 9
    return [
        measure(ENTRIES, dtype, "rademacher", options.device, repetitions)
        for dtype in (torch.float32, torch.bfloat16)
    ]
