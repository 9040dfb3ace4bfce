"""Whether a pass's matrix products give each example the same bits wherever it stands.

Libraries choose how to add up a product by its shape, and some ways treat rows differently by their
place: the last rows of a block, say, or every other row. Such a difference is in the last bit, and
one text in ten may show it after a whole model, or none of a few dummy texts. So each product that
a pass makes is made again with the same random numbers for every example; then a difference shows
in half of the trials or more. Weights are those of the pass, so that none is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten

#: Products, and which of their arguments has the examples. In inference mode the first ones are
#: seen as a model calls them, otherwise what they are made of.
_EXAMPLES: dict[Any, int] = {
    _aten.linear.default: 0,
    _aten.matmul.default: 0,
    _aten.scaled_dot_product_attention.default: 0,
    _aten.conv1d.default: 0,
    _aten.conv2d.default: 0,
    _aten.mm.default: 0,
    _aten.bmm.default: 0,
    _aten.addmm.default: 1,
    _aten.baddbmm.default: 1,
    _aten.convolution.default: 0,
}

_TRIALS = 16


class _Tried(TorchDispatchMode):
    """Tries each product that is made, where none like it was tried before.

    Args:
        rows, times: as for `products_are_isolated`.

    Attributes:
        verdicts: by function and how its arguments lie in memory, whether it is isolated.
    """

    def __init__(self, rows: int, times: int) -> None:
        super().__init__()
        self.verdicts: dict[Any, bool] = {}
        self._rows = rows
        self._times = times

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func in _EXAMPLES:
            like = (func, *map(_outline, args), *map(str, kwargs.items()))
            if like not in self.verdicts:
                self.verdicts[like] = _is_isolated(func, args, kwargs, self._rows, self._times)
        return func(*args, **kwargs)


def products_are_isolated(evaluate: Callable[[], object], *, rows: int, times: int) -> bool:
    """Whether every product that `evaluate` makes treats all its examples alike, bit for bit.

    Args:
        evaluate: makes forward passes.
        rows: examples in a pass.
        times: how often the examples stand one after the other in it: its directions.
    """
    if rows == 1:
        return True
    with _Tried(rows, times) as tried:
        evaluate()
    return all(tried.verdicts.values())


def _outline(argument: Any) -> Any:
    """An argument as something to look up: a tensor without its numbers."""
    if isinstance(argument, Tensor):
        return tuple(argument.shape), argument.stride(), argument.dtype, argument.device
    return tuple(argument) if isinstance(argument, list) else argument


def _is_isolated(
    function: Any, args: Sequence[Any], kwargs: dict[str, Any], rows: int, times: int
) -> bool:
    place = _EXAMPLES[function]
    shape = tuple(args[place].shape)
    axis, groups = _axis(shape, rows, times)
    if shape[axis] % (rows * groups):
        return True  # holds no examples, such as a product of two weights
    cut = (groups, rows, shape[axis] // (rows * groups))
    generator = torch.Generator().manual_seed(0)
    for _ in range(_TRIALS):
        arguments = list(args)
        for index, argument in enumerate(args):
            if _has_examples(argument, shape, axis):
                arguments[index] = _random(argument, generator)
                _all_alike(arguments[index].unflatten(axis, cut), axis + 1)
        if place == 1:
            # Added element by element, whatever is in it.
            arguments[0] = torch.zeros_like(args[0])
        result = function(*arguments, **kwargs).unflatten(axis, cut)
        if not torch.equal(result, result.narrow(axis + 1, 0, 1).expand_as(result)):
            return False
    return True


def _axis(shape: tuple[int, ...], rows: int, times: int) -> tuple[int, int]:
    """Along which axis examples lie, and how many times they do."""
    if len(shape) == 3 and shape[0] == times > 1:
        return 1, 1  # one matrix for each direction
    return 0, times if shape[0] % (rows * times) == 0 else 1


def _has_examples(argument: Any, shape: tuple[int, ...], axis: int) -> bool:
    """Whether it is the tensor of this shape, or is multiplied with it example by example."""
    if not isinstance(argument, Tensor):
        return False
    others = argument.ndim == len(shape) > 2 and argument.shape[: axis + 1] == shape[: axis + 1]
    return argument.shape == shape or others


def _random(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers that lie in memory as the tensor's do."""
    lies = tensor.stride()
    if any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, lies, strict=True)):
        lies = torch.empty(tensor.shape, device="meta").stride()
    made = torch.empty_strided(tensor.shape, lies, dtype=tensor.dtype, device=tensor.device)
    return made.copy_(torch.randn(tensor.shape, generator=generator))


def _all_alike(examples: Tensor, axis: int) -> None:
    """Give all along the axis what the first has."""
    examples.copy_(examples.narrow(axis, 0, 1).clone().expand_as(examples))
