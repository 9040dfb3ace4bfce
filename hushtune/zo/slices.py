"""Many perturbed parameters in one forward pass, where few parameters move.

The rows of a micro-batch stand there once for every move, one move's rows after the other's: a
slice for each. Operations without a moving parameter see all rows at once; they are the same for
all moves, and one large product is cheaper than many small ones. An operation on a moving parameter
runs slice by slice, each with its own move's perturbed copy; products with a moving matrix are one
batched product instead. A row's losses are those of its own slice, whatever the others hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hushtune.zo.substitution import asks_for_values


class SlicedSubstitution(TorchFunctionMode):
    """While active, operations on moving parameters see another replacement in each slice of rows.

    Args:
        parameters: the moving parameters by name.
        frozen: all other tensors of the model; they are no rows, however long they are.
        replace: for each slice, what returns the tensor that its operations shall see; see
            `hushtune.zo.substitution.Substitution`.
        rows: rows of all slices together; the first axis of every tensor of rows is a multiple.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        frozen: Sequence[Tensor],
        replace: Sequence[Callable[[str, Tensor], Tensor]],
        rows: int,
    ) -> None:
        super().__init__()
        self._name_of = {id(parameter): name for name, parameter in parameters.items()}
        self._alive: list[Any] = [parameters, frozen]  # and with them their ids
        self._frozen = {id(tensor) for tensor in frozen}
        self._replace = replace
        self._rows = rows
        self._slices: dict[int, list[Tensor]] = {}  # made from moving parameters alone

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        leaves = [leaf for value in (*args, *kwargs.values()) for leaf in _tensors(value)]
        if not asks_for_values(func) or not any(self._moves(leaf) for leaf in leaves):
            return func(*args, **kwargs)
        if func is functional.linear and self._is_product(args, kwargs):
            return self._product(*args)
        results = [
            func(
                *(self._sliced(argument, index) for argument in args),
                **{name: self._sliced(argument, index) for name, argument in kwargs.items()},
            )
            for index in range(len(self._replace))
        ]
        if any(self._has_rows(leaf) for leaf in leaves):
            return _joined(results)
        return self._remembered(results)

    def _moves(self, tensor: Tensor) -> bool:
        return id(tensor) in self._name_of or id(tensor) in self._slices

    def _has_rows(self, tensor: Tensor) -> bool:
        if id(tensor) in self._frozen or self._moves(tensor) or tensor.dim() == 0:
            return False
        return tensor.shape[0] % self._rows == 0

    def _sliced(self, argument: Any, index: int) -> Any:
        if isinstance(argument, (list, tuple)):
            return type(argument)(self._sliced(item, index) for item in argument)
        if not isinstance(argument, Tensor):
            return argument
        if self._moves(argument):
            return self._each(argument)[index]
        if self._has_rows(argument):
            return argument.chunk(len(self._replace))[index]
        return argument

    def _each(self, tensor: Tensor) -> list[Tensor]:
        """What stands for the tensor in each slice."""
        if id(tensor) in self._slices:
            return self._slices[id(tensor)]
        name = self._name_of[id(tensor)]
        return [replace(name, tensor) for replace in self._replace]

    def _remembered(self, results: list[Any]) -> Any:
        first = results[0]
        for kind in zip(*map(_tensors, results), strict=True):
            self._slices[id(kind[0])] = list(kind)
        self._alive.append(results)
        return first

    def _is_product(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if kwargs or len(args) < 2 or (len(args) == 3 and args[2] is not None):
            return False
        return self._moves(args[1]) and self._has_rows(args[0])

    def _product(self, rows: Tensor, weight: Tensor, _bias: None = None) -> Tensor:
        weights = torch.stack(self._each(weight))
        slices = rows.reshape(len(weights), -1, rows.shape[-1])
        return torch.bmm(slices, weights.mT).view(*rows.shape[:-1], -1)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _joined(results: list[Any]) -> Any:
    first = results[0]
    if isinstance(first, Tensor):
        return torch.cat(results)
    return type(first)(_joined(list(parts)) for parts in zip(*results, strict=True))
