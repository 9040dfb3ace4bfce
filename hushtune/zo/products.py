"""Whether a pass's matrix products give each example the same bits wherever it stands.

Libraries choose how to add up a product by its shape, and some ways treat rows differently by their
place: the last rows of a block, say, or every other row. Such a difference is in the last bit, and
one text in ten may show it after a whole model, or none of a few dummy texts. So each product that
a pass makes is made again, with random numbers of the same shapes and the same rows for every
example; then a difference shows in half of the trials or more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

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


class _Operand(NamedTuple):
    """How a tensor lies in memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class _Product(NamedTuple):
    """A product, but for the numbers in its tensors."""

    function: Any
    arguments: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]


class _Seen(TorchDispatchMode):
    """Collects the products that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.products: set[_Product] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func in _EXAMPLES:
            named = tuple(sorted(kwargs.items()))
            self.products.add(_Product(func, tuple(map(_outline, args)), named))
        return func(*args, **kwargs)


def _outline(argument: Any) -> Any:
    """An argument as something to look up: a tensor without its numbers."""
    if isinstance(argument, Tensor):
        return _Operand(tuple(argument.shape), argument.stride(), argument.dtype, argument.device)
    return tuple(argument) if isinstance(argument, list) else argument


def products_are_isolated(evaluate: Callable[[], object], *, rows: int, times: int) -> bool:
    """Whether every product that `evaluate` makes treats all its examples alike, bit for bit.

    Args:
        evaluate: makes a forward pass.
        rows: examples in the pass.
        times: how often the examples stand one after the other in it: its directions.
    """
    if rows == 1:
        return True
    with _Seen() as seen:
        evaluate()
    return all(_is_isolated(product, rows, times) for product in seen.products)


@lru_cache(maxsize=1024)
def _is_isolated(product: _Product, rows: int, times: int) -> bool:
    place = _EXAMPLES[product.function]
    shape = product.arguments[place].shape
    axis, groups = _axis(shape, rows, times)
    if shape[axis] % (rows * groups):
        return True  # holds no examples, such as a product of two weights
    cut = (groups, rows, shape[axis] // (rows * groups))
    generator = torch.Generator().manual_seed(0)
    for _ in range(_TRIALS):
        arguments = [_filled(argument, generator) for argument in product.arguments]
        for argument in arguments:
            if _has_examples(argument, shape, axis):
                _all_alike(argument.unflatten(axis, cut), axis + 1)
        if place == 1:
            arguments[0].zero_()  # added element by element, whatever is in it
        result = product.function(*arguments, **dict(product.named)).unflatten(axis, cut)
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


def _filled(argument: Any, generator: torch.Generator) -> Any:
    """An argument with random numbers, lying in memory as the one that was seen."""
    if not isinstance(argument, _Operand):
        return list(argument) if isinstance(argument, tuple) else argument
    shape, strides, dtype, device = argument
    if any(stride == 0 and size > 1 for size, stride in zip(shape, strides, strict=True)):
        tensor = torch.empty(shape, dtype=dtype, device=device)
    else:
        tensor = torch.empty_strided(shape, strides, dtype=dtype, device=device)
    return tensor.copy_(torch.randn(shape, generator=generator))


def _all_alike(examples: Tensor, axis: int) -> None:
    """Give all along the axis what the first has."""
    examples.copy_(examples.narrow(axis, 0, 1).clone().expand_as(examples))
