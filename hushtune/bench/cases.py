"""What is measured: a method, a model's size, and how much work a step is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from hushtune.bench.models import SIZES, Size
from hushtune.sizing import costs
from hushtune.zo.estimators import Estimator, moves

Method = Literal["hushtune", "in-place", "dp-sgd", "inference"]


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        size: name of the model's size.
        method: hushtune's own step; the textbook loop, which perturbs and restores in place;
            first-order DP-SGD; or forward passes alone.
        moving: "full", "lora" (rank 8), or "last-N": the last N layers.
        directions: K.
        estimator: two-sided or one-sided.
        tokens: of a step, all texts together.
        length: of a text, in tokens.
        micro_batch_tokens: of a forward pass.
        dtype: "float32", "bfloat16" or "nf4".
        device: "cpu" or "cuda".
    """

    size: str
    method: Method = "hushtune"
    moving: str = "full"
    directions: int = 1
    estimator: Estimator = "two-sided"
    tokens: int = 4096
    length: int = 128
    micro_batch_tokens: int = 1024
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def shape(self) -> Size:
        """The model's shape."""
        return SIZES[self.size]

    @property
    def name(self) -> str:
        """What distinguishes it, in words."""
        name = f"{self.size} {self.moving}"
        if self.method != "hushtune":
            return f"{name}, {self.method}"
        sides = f", {self.estimator}" if self.directions > 1 else ""
        return f"{name}, K = {self.directions}{sides}"

    @property
    def passes(self) -> int:
        """Forward passes that every micro-batch needs; of first-order methods, one."""
        if self.method in ("dp-sgd", "inference"):
            return 1
        return len(moves(self.estimator, self.directions, 1.0))

    @property
    def rows(self) -> int:
        """Texts a step."""
        return max(1, self.tokens // self.length)

    @property
    def rows_a_pass(self) -> int:
        """Texts a forward pass."""
        return max(1, min(self.rows, self.micro_batch_tokens // self.length))

    def expected_bytes(self) -> int:
        """Memory that it needs at least: weights, and the largest operation's copy."""
        needed = self.shape.bytes(self.dtype)
        if self.moving == "full":
            needed += self.shape.largest_operation(self.dtype)
        # Activations: about as many values a token as a layer has in all its inputs and outputs.
        itemsize = 4 if self.dtype == "float32" else 2
        activations = 16 * self.micro_batch_tokens * self.shape.width * itemsize
        per_example = 0
        if self.method == "dp-sgd":  # a gradient, its sum, and the optimiser's step
            per_example = 3 * self.shape.bytes("float32")
        return needed + activations + per_example

    def inference(self) -> Case:
        """The forward passes of the same micro-batches, alone."""
        return dataclasses.replace(self, method="inference", directions=1, estimator="two-sided")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def as_train_chooses(device: str, moving: str) -> int:
    """Tokens of a forward pass that `hushtune train` takes where there is memory enough."""
    return costs(torch.device(device), all_move=moving == "full").most_tokens


def table(
    sizes: Sequence[str],
    directions: Sequence[int],
    *,
    device: str,
    micro_batch_tokens: int | None = None,
    **common: Any,
) -> list[Case]:
    """All cases of these sizes and numbers of directions.

    On a CPU, the textbook loop and DP-SGD stand beside hushtune's step.

    Args:
        micro_batch_tokens: None takes what `hushtune train` would.
    """
    cases: list[Case] = []
    for size in sizes:
        for moving in ("full", "lora"):
            tokens = micro_batch_tokens or as_train_chooses(device, moving)
            base = Case(size, moving=moving, device=device, micro_batch_tokens=tokens, **common)
            if base.dtype == "nf4" and moving == "full":
                continue
            cases += [
                dataclasses.replace(base, directions=count, estimator=estimator)
                for count in directions
                for estimator in (("two-sided",) if count == 1 else ("two-sided", "one-sided"))
            ]
            others: tuple[Method, ...] = ("in-place", "dp-sgd") if device == "cpu" else ()
            cases += [dataclasses.replace(base, method=method) for method in others]
    return cases


def quick(*, device: str, micro_batch_tokens: int | None = None, **common: Any) -> list[Case]:
    """A few cases that take about two minutes in all."""
    rest = {"micro_batch_tokens": micro_batch_tokens or 1024, "device": device, **common}
    return [
        Case("5M", **rest),
        Case("5M", directions=8, estimator="one-sided", **rest),
        Case("5M", method="in-place", **rest),
        Case("22M", **rest),
        Case("22M", moving="lora", **rest),
    ]


def large(
    directions: Sequence[int], *, micro_batch_tokens: int | None = None, **common: Any
) -> list[Case]:
    """The table for a GPU: full parameters in bfloat16, and 175B in NF4 with adapters."""

    def case(size: str, moving: str, **chosen: Any) -> Case:
        tokens = micro_batch_tokens or as_train_chooses("cuda", moving)
        return Case(
            size, moving=moving, device="cuda", micro_batch_tokens=tokens, **chosen, **common
        )

    cases = [case(size, "full", dtype="bfloat16") for size in ("1.3B", "6.7B", "13B", "66B")]
    return cases + [case("175B", "lora", dtype="nf4", directions=count) for count in directions]


def sweep(size: str, device: str) -> dict[str, list[Case]]:
    """For each thing that cost may depend on, cases that differ in it alone."""
    base = Case(size, device=device, micro_batch_tokens=as_train_chooses(device, "full"))

    def varied(name: str, values: Sequence[Any], **rest: Any) -> list[Case]:
        return [dataclasses.replace(base, **{name: value}, **rest) for value in values]

    return {
        "tokens": varied("tokens", (512, 1024, 2048, 4096, 8192)),
        "micro_batch_tokens": varied("micro_batch_tokens", (256, 512, 1024, 2048, 4096)),
        "length": varied("length", (32, 64, 128, 256, 512)),
        "directions": varied("directions", (1, 2, 4, 8, 16), tokens=1024)
        + varied("directions", (2, 4, 8, 16), tokens=1024, estimator="one-sided"),
        "size": [dataclasses.replace(base, size=name) for name in ("5M", "22M", "125M")],
    }
