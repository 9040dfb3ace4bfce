"""Opacus' hooks for ghost clipping (Li et al., 2022), with what exact norms need beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooksFastGradientClipping
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient
from torch import Tensor, nn

#: Layers that do the same at every position, so that positions may stand in one long sequence.
_BY_POSITION = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)


class GhostHooks(GradSampleHooksFastGradientClipping):
    """Computes the norms of examples' gradients during a backward pass of the sum of their losses.

    For linear layers and embeddings a norm comes from a layer's inputs and the gradients by its
    outputs, and no example's gradient is ever made. Two kinds of layers get the gradient of every
    example, held until its norm is known: those that Opacus knows no such formula for, and those
    with a parameter that the model uses more than once, such as an embedding that is also the
    output layer.

    An example may be several sequences, which stand together in the batch. The formulas sum over
    positions, so all positions of its sequences taken as those of one long sequence give the norm
    of the sum.

    Attributes:
        module: the model; its layers with moving parameters are in training mode.
        examples: number of examples of the batch, to be set before a forward pass.
        sequences: number of sequences of the batch, to be set as well.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, loss_reduction="sum", strict=False)
        self.examples = self.sequences = 1
        known = self.GRAD_SAMPLERS
        self._layers = list(self.iterate_submodules(module))
        self._unknown = {type(layer) for layer in self._layers} - known.keys()
        self.GRAD_SAMPLERS = known | dict.fromkeys(self._unknown, self._gradients_by_torch)
        self._used_once: set[int] = set()
        for layer in self._layers:
            if isinstance(layer, nn.Embedding):
                handle = layer.register_forward_pre_hook(self._one_row_each)
                self.autograd_grad_sample_hooks.append(handle)

    def iterate_submodules(self, module: nn.Module) -> Iterator[nn.Module]:
        """Layers with moving parameters of their own.

        A layer of a kind that Opacus does not know is left out where its parameters are also those
        of layers inside it, which is where they are used.
        """
        known = self.GRAD_SAMPLERS
        leaves = [each for each in module.modules() if type(each) in known]
        inside = {id(parameter) for leaf in leaves for parameter in _moving(leaf)}
        for each in module.modules():
            own = {id(parameter) for parameter in _moving(each)}
            if own and (type(each) in known or not own <= inside):
                yield each

    def forward_is_done(self) -> None:
        """Look which parameters the forward pass used once; to be called before the backward."""
        self._used_once = {id(each) for each in self.trainable_parameters if _uses(each) == 1}

    def with_gradients(self) -> list[nn.Parameter]:
        """Parameters whose gradient is made for every example, as of the last forward pass."""
        return [p for layer in self._layers if not self._by_norm(layer) for p in _moving(layer)]

    def forget(self) -> None:
        """Drop what a pass left behind."""
        for parameter in self.trainable_parameters:
            parameter.grad_sample = parameter._norm_sample = None  # type: ignore[attr-defined]
            parameter._forward_counter = 0  # type: ignore[attr-defined]

    def capture_activations_hook(
        self, module: nn.Module, forward_input: Iterable[Any], _forward_output: Any
    ) -> None:
        self.use_ghost_clipping = False  # here it would only refuse what is used more than once
        tensors = [each for each in forward_input if isinstance(each, Tensor)]
        super().capture_activations_hook(module, tensors, _forward_output)

    def capture_backprops_hook(self, module: nn.Module, *arguments: Any, **options: Any) -> None:
        self.use_ghost_clipping = self._by_norm(module)
        super().capture_backprops_hook(module, *arguments, **options)

    def rearrange_grad_samples(self, **options: Any) -> tuple[list[Tensor], Tensor]:
        """A layer's inputs and the gradients by its outputs, one row for each example."""
        found: Any = super().rearrange_grad_samples(**options)  # annotated as two tensors
        activations, backprops = found
        layer = options["module"]
        layer.max_batch_len = self.examples
        if not isinstance(layer, _BY_POSITION) or type(layer) in self._unknown:
            return activations, backprops
        backprops = backprops.float()  # norms of 16-bit gradients would be as coarse
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            padding = activations[0] == layer.padding_idx
            backprops = backprops.masked_fill(padding.unsqueeze(-1), 0.0)
        dims = backprops.dim() - 1  # of which the last is the layer's width
        backprops = self._by_example(backprops, dims)
        return [self._by_example(each, dims) for each in activations], backprops

    def _by_example(self, tensor: Tensor, dims: int) -> Tensor:
        """(examples, positions, …) from (sequences, …), of which `dims` count positions."""
        return tensor.unflatten(0, (self.examples, -1)).flatten(1, dims).contiguous()

    def _by_norm(self, layer: nn.Module) -> bool:
        once = all(id(parameter) in self._used_once for parameter in _moving(layer))
        return once and type(layer) in self.NORM_SAMPLERS

    def _gradients_by_torch(
        self, layer: nn.Module, activations: list[Tensor], backprops: Tensor
    ) -> dict[nn.Parameter, Tensor]:
        found = ft_compute_per_sample_gradient(layer, activations, backprops)
        return {
            parameter: each.float().unflatten(0, (self.examples, -1)).sum(dim=1)
            for parameter, each in found.items()
        }

    def _one_row_each(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Gives every sequence its own row of numbers that all share, such as positions."""
        first, *rest = inputs
        if self.hooks_enabled and torch.is_grad_enabled() and len(first) == 1:
            first = first.expand(self.sequences, *first.shape[1:])
        return (first, *rest)


def _moving(layer: nn.Module) -> list[nn.Parameter]:
    return [each for each in layer.parameters(recurse=False) if each.requires_grad]


def _uses(parameter: nn.Parameter) -> int:
    return parameter._forward_counter  # type: ignore[attr-defined]
