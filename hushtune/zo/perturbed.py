"""Operations see θ + c·z: the substitution that the forward passes of a step run under.

Perturbed copies are written into scratch memory that every operation uses anew, so that a forward
pass takes no more than the parameters of its largest operation, and touches no memory for the first
time. Of an embedding only the rows that a micro-batch looks up are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hushtune.zo.directions import Directions
from hushtune.zo.estimators import Move
from hushtune.zo.substitution import Substitution

#: Operations whose result never shares memory with an argument, as a view would. Only these may
#: read scratch that the next operation writes over.
_MAKES_NEW_MEMORY = frozenset(
    {
        functional.linear,
        functional.embedding,
        functional.layer_norm,
        functional.conv1d,
        torch.addmm,
        torch.matmul,
        torch.bmm,
        Tensor.matmul,
        Tensor.__matmul__,
    }
)

#: Entries of a matrix that are made at a time, for each type of device: few enough to be still in
#: a cache when they are multiplied, enough to be worth a call.
_BLOCK = {"cpu": 1 << 22, "cuda": 1 << 26}

#: Entries by which copies are apart in scratch, so that all of them start on a cache line.
_ALIGNMENT = 64


class Scratch:
    """Memory for the perturbed parameters of one operation at a time.

    It grows to what the largest operation so far needed, for each number format and device.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self._used: dict[tuple[torch.dtype, torch.device], int] = {}

    @property
    def bytes(self) -> int:
        """Bytes that are held."""
        return sum(block.numel() * block.element_size() for block in self._blocks.values())

    def begin_operation(self) -> None:
        """Everything that was handed out may be overwritten from here on."""
        self._used.clear()

    def like(self, tensor: Tensor) -> Tensor:
        """Contiguous memory of the tensor's shape, dtype and device, until the next operation."""
        kind = (tensor.dtype, tensor.device)
        start = self._used.get(kind, 0)
        end = start + math.ceil(tensor.numel() / _ALIGNMENT) * _ALIGNMENT
        block = self._blocks.get(kind)
        if block is None or block.numel() < end:
            # What this operation was handed before lives on in the old block.
            block = torch.empty(end, dtype=tensor.dtype, device=tensor.device)
            self._blocks[kind] = block
        self._used[kind] = end
        return block[start : start + tensor.numel()].view(tensor.shape)


class Perturbed(Substitution):
    """While active, operations see `parameter + move.scale · scales[name] · z`.

    Args:
        parameters: the moving parameters by name.
        scales: a public factor per parameter.
        directions: the public directions.
        move: where to look.
        charge: the charged step.
        scratch: shared by all passes of a run.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        scales: Mapping[str, float],
        directions: Directions,
        move: Move,
        *,
        charge: int,
        scratch: Scratch,
    ) -> None:
        super().__init__(parameters, self.copy)
        self._scales = scales
        self._directions = directions
        self._move = move
        self._charge = charge
        self._scratch = scratch

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.embedding and self._looks_up_few(args, kwargs):
            return self._looked_up(args[0], args[1])
        if func not in _MAKES_NEW_MEMORY:
            return self._call(func, args, kwargs, self._replace)
        self._scratch.begin_operation()
        if func is functional.linear and self._multiplies_much(*args, **kwargs):
            return self._product(*args, **kwargs)
        return self._call(func, args, kwargs, self._in_scratch)

    def _multiplies_much(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
        """Whether it is a product with a moving matrix of more than a block."""
        return (
            self._name(weight) is not None
            and weight.numel() > _BLOCK.get(weight.device.type, math.inf)
            and input.dtype == weight.dtype
            and not torch.is_autocast_enabled(weight.device.type)
            and not torch.is_grad_enabled()
        )

    def _product(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """What `functional.linear` returns, of a matrix whose copy never is there at once."""
        name = self._name(weight)
        assert name is not None
        if bias is not None:
            bias = self._exchange(bias, self._in_scratch)
        outputs, inputs = weight.shape
        rows = input.reshape(-1, inputs)
        result = rows.new_empty(rows.shape[0], outputs)
        height = max(_BLOCK[weight.device.type] // inputs, 1)
        block = self._scratch.like(weight[:height])
        for start in range(0, outputs, height):
            stop = min(start + height, outputs)
            moved = self._directions.perturbed_between(
                name, weight, start, stop, out=block[: stop - start], **self._where(name)
            )
            columns = result[:, start:stop]
            if bias is None:
                torch.mm(rows, moved.t(), out=columns)
            else:
                torch.addmm(bias[start:stop], rows, moved.t(), out=columns)
        return result.view(*input.shape[:-1], outputs)

    def _looks_up_few(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether it is a plain look-up, of fewer rows of a moving matrix than that has."""
        if len(args) < 2 or self._name(args[1]) is None:
            return False
        renormalises = kwargs.get("max_norm") is not None or (len(args) > 3 and args[3] is not None)
        return not renormalises and args[0].numel() < args[1].shape[0]

    def _looked_up(self, numbers: Tensor, weight: Tensor) -> Tensor:
        name = self._name(weight)
        assert name is not None
        rows = self._directions.perturbed_rows(
            name, weight, numbers.reshape(-1), **self._where(name)
        )
        return rows.view(*numbers.shape, -1)

    def copy(self, name: str, parameter: Tensor) -> Tensor:
        """What operations see of a parameter, in memory of its own."""
        return self._directions.perturbed(name, parameter, **self._where(name))

    def _in_scratch(self, name: str, parameter: Tensor) -> Tensor:
        out = self._scratch.like(parameter)
        return self._directions.perturbed(name, parameter, out=out, **self._where(name))

    def _where(self, name: str) -> dict[str, Any]:
        return {
            "charge": self._charge,
            "direction": self._move.direction,
            "scale": self._move.scale * self._scales[name],
        }
