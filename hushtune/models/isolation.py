"""Refuse models in which one example's numbers depend on another's.

The privacy proof needs every example's loss to be a function of that example alone. Some layers
break this by design; they are refused by name. Numerical coupling, which no list can foresee, is
what the probe looks for.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

#: Why LLM.int8() couples examples.
LLM_INT8 = "it chooses its outlier columns over all rows of the batch"

#: Part of a class's name: why it couples examples.
_COUPLING = {
    "BatchNorm": "it normalises by statistics of the batch",
    "Linear8bitLt": f"as LLM.int8, {LLM_INT8}",
    "Experts": "experts are evaluated on batches made of several examples",
    "SparseMoe": "experts are evaluated on batches made of several examples",
    "SparseMLP": "experts are evaluated on batches made of several examples",
    "MoE": "experts are evaluated on batches made of several examples",
}


class CouplingError(ValueError):
    """A model that cannot be trained privately, with the offending module's path."""


def refuse_coupling(model: nn.Module) -> None:
    """Raise CouplingError for the first module that couples examples by design."""
    for path, module in model.named_modules():
        if reason := _coupling_of(module):
            raise CouplingError(
                f"model.name: {path} is a {type(module).__name__} and couples the examples of "
                f"a batch: {reason}. Accepted: models whose layers treat rows separately."
            )
        if "dynamic" in _rope_types(module):
            raise CouplingError(
                f"model.name: {path} has dynamic rotary positions and couples the examples of a "
                "run: they depend on the longest text seen before. Accepted: rope_type default, "
                "linear, yarn or llama3."
            )


def _coupling_of(module: nn.Module) -> str | None:
    """Why a module couples examples, if it does."""
    for part, reason in _COUPLING.items():
        if part in type(module).__name__:
            return reason
    # torch.ao replaces the module, torchao its weight.
    weights = module.parameters(recurse=False)
    if ".quantized.dynamic." in type(module).__module__ or any(map(_scales_by_tensor, weights)):
        return "it chooses one scale for the activations of the whole batch"
    return None


def _scales_by_tensor(weight: Tensor) -> bool:
    """Whether a torchao weight quantises the activations it meets by other scales than a row's."""
    activations = getattr(weight, "act_quant_kwargs", None)
    if activations is None:
        return False
    return type(getattr(activations, "granularity", None)).__name__ != "PerRow"


def _rope_types(module: nn.Module) -> list[Any]:
    """Kinds of rotary positions; where layers differ, transformers keeps one a kind of layer."""
    kinds = getattr(module, "rope_type", None)
    return list(kinds.values()) if isinstance(kinds, dict) else [kinds]
