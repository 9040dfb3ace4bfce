"""Many perturbed parameters in one forward pass.

The rows of a micro-batch stand there once for every move, one move's rows after the other's: a
slice for each. Operations without a moving parameter see all rows at once; they are the same for
all moves, one large product is cheaper than many small ones, and weights that are fetched for an
operation are fetched once. An operation on a moving parameter runs slice by slice, each with its
own move's perturbed copy, which lives as long as that slice's operation; products with a small
moving matrix are one batched product instead. A row's losses are those of its own slice, whatever
the others hold.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from hushtune.zo.substitution import asks_for_values

#: Bytes that the copies of all slices together may take where they are there at the same time.
_SMALL = 1 << 26


class _Pinned(NamedTuple):
    """A moving parameter's values, which a streamed parameter has for a while only."""

    name: str
    values: Tensor


class Stacks:
    """Copies of small moving matrices for all slices, kept from one pass of a step to the next.

    Args:
        limit: bytes that they may take; beyond, they are made again in every pass.
    """

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._of: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable) -> Tensor | None:
        """The copies that were kept under this key."""
        return self._of.get(key)

    def keep(self, key: Hashable, stack: Tensor) -> None:
        """For the passes to come, if there is room."""
        size = stack.numel() * stack.element_size()
        if size <= self._room:
            self._room -= size
            self._of[key] = stack


class SlicedSubstitution(TorchFunctionMode):
    """While active, operations on moving parameters see another replacement in each slice of rows.

    Args:
        parameters: the moving parameters by name.
        frozen: all other tensors of the model; they are no rows, however long they are.
        replace: for each slice, what returns the tensor that its operations shall see; see
            `hushtune.zo.substitution.Substitution`. That tensor is not used any more when the
            next one is asked for.
        rows: rows of all slices together; the first axis of every tensor of rows is a multiple.
        stacks: copies that earlier passes made of parameters that have not changed since; added to.
        moves: what `replace` does, to tell its copies from those of others.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        frozen: Sequence[Tensor],
        replace: Sequence[Callable[[str, Tensor], Tensor]],
        rows: int,
        stacks: Stacks | None = None,
        moves: Hashable = None,
    ) -> None:
        super().__init__()
        self._name_of = {id(parameter): name for name, parameter in parameters.items()}
        self._alive = (parameters, frozen)  # and with them their ids
        self._frozen = {id(tensor) for tensor in frozen}
        self._replace = replace
        self._rows = rows
        self._stacks = Stacks(0) if stacks is None else stacks
        self._moves_of_slices = moves
        # Tensors made from moving parameters alone: from the slice to what stands for them there.
        self._made: Any = WeakTensorKeyDictionary()

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

        if not any(self._has_rows(leaf) for leaf in leaves):
            return self._remembered(func, args, kwargs, leaves)
        if func is functional.linear and self._is_small_product(args, kwargs):
            return self._product(*args)
        indices = range(len(self._replace))
        results = (self._of_slice(index, func, args, kwargs) for index in indices)
        return _joined(results, len(indices))

    def _of_slice(self, index: int, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return func(
            *(self._sliced(argument, index) for argument in args),
            **{name: self._sliced(argument, index) for name, argument in kwargs.items()},
        )

    def _moves(self, tensor: Tensor) -> bool:
        return id(tensor) in self._name_of or tensor in self._made

    def _has_rows(self, tensor: Tensor) -> bool:
        if id(tensor) in self._frozen or self._moves(tensor) or tensor.dim() == 0:
            return False
        return tensor.shape[0] % self._rows == 0

    def _sliced(self, argument: Any, index: int) -> Any:
        if isinstance(argument, _Pinned):
            return self._replace[index](*argument)
        if isinstance(argument, (list, tuple)):
            return type(argument)(self._sliced(item, index) for item in argument)
        if not isinstance(argument, Tensor):
            return argument
        if self._moves(argument):
            return self._moved(argument, index)
        if self._has_rows(argument):
            return argument.chunk(len(self._replace))[index]
        return argument

    def _moved(self, tensor: Tensor, index: int) -> Tensor:
        """What stands for the tensor in a slice."""
        name = self._name_of.get(id(tensor))
        return self._made[tensor](index) if name is None else self._replace[index](name, tensor)

    def _remembered(
        self, func: Callable[..., Any], args: Any, kwargs: Any, leaves: Sequence[Tensor]
    ) -> Any:
        """The result of the unmoved parameters, which from now on stands for those of all slices.

        Small ones are computed now, as biases of positions that every layer adds. Large ones, such
        as transposed weights, are computed where they are used, one slice at a time.
        """
        result = func(*args, **kwargs)
        tensors = _tensors(result)
        if any(tensor is leaf for tensor in tensors for leaf in leaves):
            return result  # converted to what it is already
        pinned = self._pinned(args), {name: self._pinned(each) for name, each in kwargs.items()}

        def of_slice(index: int) -> list[Tensor]:
            return _tensors(self._of_slice(index, func, *pinned))

        copies = None
        if self._is_small(*tensors):
            indices = range(len(self._replace))
            copies = [[tensor.clone() for tensor in of_slice(index)] for index in indices]
        for place, tensor in enumerate(tensors):
            self._made[tensor] = lambda index, at=place: (
                copies[index] if copies else of_slice(index)
            )[at]
        return result

    def _pinned(self, argument: Any) -> Any:
        if isinstance(argument, (list, tuple)):
            return type(argument)(map(self._pinned, argument))
        if isinstance(argument, Tensor) and id(argument) in self._name_of:
            return _Pinned(self._name_of[id(argument)], argument.detach())
        return argument

    def _is_small(self, *tensors: Tensor) -> bool:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return size * len(self._replace) <= _SMALL

    def _is_small_product(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if kwargs or len(args) < 2 or (len(args) == 3 and args[2] is not None):
            return False
        return self._moves(args[1]) and self._has_rows(args[0]) and self._is_small(args[1])

    def _product(self, rows: Tensor, weight: Tensor, _bias: None = None) -> Tensor:
        weights = self._stack(weight)
        slices = rows.reshape(len(weights), -1, rows.shape[-1])
        return torch.bmm(slices, weights.mT).view(*rows.shape[:-1], len(weight))

    def _stack(self, weight: Tensor) -> Tensor:
        """What stands for the matrix in all slices, one behind the other."""
        name = self._name_of.get(id(weight))
        key = (self._moves_of_slices, name)
        if name is not None and (kept := self._stacks.get(key)) is not None:
            return kept
        weights = weight.new_empty((len(self._replace), *weight.shape))
        for index, own in enumerate(weights):
            own.copy_(self._moved(weight, index))
        if name is not None:
            self._stacks.keep(key, weights)
        return weights


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _joined(results: Iterator[Any], count: int) -> Any:
    """The slices' results one below the other; each is let go of when the next one is made."""
    joined = None
    for index, result in enumerate(results):
        if index == 0:
            joined = _room(result, count)
        for whole, part in zip(_tensors(joined), _tensors(result), strict=True):
            whole[index * len(part) : (index + 1) * len(part)] = part
        del result
    return joined


def _room(result: Any, count: int) -> Any:
    """For results of this form."""
    if isinstance(result, Tensor):
        return result.new_empty((count * len(result), *result.shape[1:]))
    return type(result)(_room(part, count) for part in result)
