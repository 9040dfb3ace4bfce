"""Let operations see θ + c·z while the parameters stay where they are.

A `TorchFunctionMode` looks at the arguments of every torch operation and hands over a perturbed
copy wherever a moving parameter appears. The copy lives as long as the operation, nothing is
changed and so nothing is restored. Tied parameters are one tensor and get one direction;
parameters that a module reads directly are found as well as those of standard layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Properties of a tensor that carry its values; all others (shape, dtype, …) are left alone.
_VALUE_PROPERTIES = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})

#: Methods that ask about a tensor and not for its values.
_QUESTIONS = frozenset(
    {
        torch.Tensor.size,
        torch.Tensor.dim,
        torch.Tensor.numel,
        torch.Tensor.stride,
        torch.Tensor.is_floating_point,
        torch.Tensor.is_contiguous,
        torch.Tensor.__len__,
    }
)


class Substitution(TorchFunctionMode):
    """While active, operations on moving parameters see what `replace(name, parameter)` returns.

    Args:
        parameters: the moving parameters by name. They are looked up when the mode is entered,
            so that a parameter object that was exchanged in between is still found by its name.
        replace: returns the tensor that the operation shall see, of the same shape and dtype.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], replace: Callable[[str, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self._name_of = {id(parameter): name for name, parameter in parameters.items()}
        self._parameters = parameters  # keeps the objects alive, and with them their ids
        self._replace = replace

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self._call(func, args, kwargs or {}, self._replace)

    def _call(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        replace: Callable[[str, Tensor], Tensor],
    ) -> Any:
        # Most operations meet no parameter, and there are as many operations as a model has lines.
        if (self._may_hold(args) or self._may_hold(kwargs.values())) and asks_for_values(func):
            args = tuple(self._exchange(argument, replace) for argument in args)
            kwargs = {key: self._exchange(argument, replace) for key, argument in kwargs.items()}
        return func(*args, **kwargs)

    def _name(self, tensor: Tensor) -> str | None:
        """The moving parameter's name; None for any other tensor."""
        return self._name_of.get(id(tensor))

    def _may_hold(self, arguments: Iterable[Any]) -> bool:
        """Whether a moving parameter is among the arguments, or a list where one might be."""
        name_of = self._name_of
        for argument in arguments:
            if id(argument) in name_of or isinstance(argument, (list, tuple)):
                return True
        return False

    def _exchange(self, argument: Any, replace: Callable[[str, Tensor], Tensor]) -> Any:
        if isinstance(argument, Tensor):
            name = self._name(argument)
            return argument if name is None else replace(name, argument)
        if isinstance(argument, (list, tuple)) and any(isinstance(x, Tensor) for x in argument):
            return type(argument)(self._exchange(item, replace) for item in argument)
        return argument


def asks_for_values(func: Callable[..., Any]) -> bool:
    if func.__name__ == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "") in _VALUE_PROPERTIES
    return func not in _QUESTIONS


def parameters_reached(parameters: Mapping[str, Tensor], forward: Callable[[], Tensor]) -> set[str]:
    """Names of those `parameters` that the result of `forward()` is computed from.

    Reading is not enough: a BERT encoder runs its pooler even where nobody uses what it returns.
    So the parameters are followed through autograd's record of the computation. Nothing is
    differentiated, so the record keeps neither activations nor weights.
    """
    # Aliases, since quantised or shared storage must not be marked itself.
    leaves = {
        name: parameter.detach().requires_grad_()
        for name, parameter in parameters.items()
        if parameter.is_floating_point()
    }
    name_of = {id(leaf): name for name, leaf in leaves.items()}
    nothing = torch.empty(0)
    keeping_nothing = torch.autograd.graph.saved_tensors_hooks(lambda _: nothing, lambda _: nothing)
    with (
        torch.enable_grad(),
        keeping_nothing,
        Substitution(parameters, lambda name, old: leaves.get(name, old)),
    ):
        result = forward()
    reached: set[str] = set()
    waiting: list[Any] = [result.grad_fn]
    seen: set[Any] = {None}
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and id(node.variable) in name_of:  # others may want gradients
            reached.add(name_of[id(node.variable)])
        waiting.extend(following for following, _ in node.next_functions)
    return reached
