"""Run the frozen lower layers once per micro-batch, whatever the number of directions.

Where only upper layers, adapters in them or a head move, all directions share the output of the
last frozen layer. While `sharing` is active, the first forward pass runs as usual and keeps the
output of the last frozen layer of each stack; in every further pass each frozen layer returns its
stack's kept output at once. Layers in between only feed the next frozen layer of their stack,
which ignores its input too, so nothing else sees the difference. Outputs that are known from an
earlier step can be handed in; then no pass runs the frozen layers. See `hushtune.zo.kept`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hushtune.zo.substitution import Substitution

#: For each stack, a list of one element: what its last frozen layer returned.
Outputs = list[list[Any]]


class FrozenPrefix:
    """The layers of a model that run before any moving parameter is read.

    Args:
        stacks: for each stack its frozen layers in the order in which they run; see
            `find_frozen_prefix`.
    """

    def __init__(self, stacks: list[list[nn.Module]]) -> None:
        self._stacks = stacks

    @property
    def depth(self) -> int:
        """Number of layers that run once per micro-batch."""
        return sum(len(layers) for layers in self._stacks)

    @contextmanager
    def sharing(self, outputs: Outputs | None = None) -> Iterator[Outputs]:
        """Within this block all forward passes must have the same inputs.

        Args:
            outputs: what the last frozen layer of each stack returns for these inputs; None: the
                first pass finds out.

        Yields those outputs, which are complete after the first pass.
        """
        shared = [[] for _ in self._stacks] if outputs is None else outputs
        wrapped = [layer for layers in self._stacks for layer in layers]
        try:
            for layers, kept in zip(self._stacks, shared, strict=True):
                _share_last_output(layers, kept)
            yield shared
        finally:
            for layer in wrapped:
                vars(layer).pop("forward", None)  # uncovers the class's own method

    def outputs(self, forward: Callable[[], Any]) -> Outputs:
        """What the last frozen layers return in `forward()`, which goes no further than that."""
        with self.sharing() as shared:
            last = [layers[-1] for layers in self._stacks]

            def stop(*_: Any) -> None:
                if all(shared):
                    raise _Complete

            hooks = [layer.register_forward_hook(stop) for layer in last]
            try:
                forward()
            except _Complete:
                pass
            finally:
                for hook in hooks:
                    hook.remove()
        return shared


class _Complete(Exception):
    """All that was wanted of a forward pass is there."""


def _share_last_output(layers: list[nn.Module], kept: list[Any]) -> None:
    def wrap(layer: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if kept:
                return kept[0]
            output = original(*args, **kwargs)
            if layer is layers[-1]:
                kept.append(output)
            return output

        return forward

    for layer in layers:
        layer.forward = wrap(layer, layer.forward)


def find_frozen_prefix(
    model: nn.Module, moving: Mapping[str, Tensor], forward: Callable[[], Tensor]
) -> FrozenPrefix:
    """The frozen layers that `forward()` runs before it first reads a moving parameter.

    Candidates are children of `nn.ModuleList`s, as transformer stacks are. The result is empty
    where sharing would change a bit of what `forward()` returns.
    """
    stack_of = {
        id(layer): id(stack)
        for stack in model.modules()
        if isinstance(stack, nn.ModuleList)
        for layer in stack
    }
    order: list[nn.Module | None] = []  # layers as they finish; None where a moving one is read

    def note(_: str, parameter: Tensor) -> Tensor:
        order.append(None)
        return parameter

    hooks = [
        layer.register_forward_hook(lambda layer, *_: order.append(layer))
        for layer in model.modules()
        if id(layer) in stack_of
    ]
    try:
        with torch.no_grad(), Substitution(moving, note):
            expected = forward()
    finally:
        for hook in hooks:
            hook.remove()

    layers: list[nn.Module] = []
    for layer in order:
        if layer is None or layer in layers:
            break
        if "forward" not in vars(layer):  # wrapped by something else: leave it alone
            layers.append(layer)
    stacks: dict[int, list[nn.Module]] = {}
    for layer in _outermost(layers):
        stacks.setdefault(stack_of[id(layer)], []).append(layer)
    prefix = FrozenPrefix(list(stacks.values()))
    with torch.no_grad(), prefix.sharing():
        passes = [forward(), forward()]
    same = all(torch.equal(each, expected) for each in passes)
    return prefix if same else FrozenPrefix([])


def _outermost(layers: list[nn.Module]) -> list[nn.Module]:
    """Without layers that are inside another one of the list."""
    inside = {id(inner) for outer in layers for inner in outer.modules() if inner is not outer}
    return [layer for layer in layers if id(layer) not in inside]
