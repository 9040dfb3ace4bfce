"""Refuse models in which one example's numbers depend on another's.

The privacy proof needs every example's loss to be a function of that example alone. Some layers
break this by design; they are refused by name. Numerical coupling, which no list can foresee, is
what the probe looks for.
"""

from __future__ import annotations

from torch import nn

#: Part of a class's name: why it couples examples.
_COUPLING = {
    "BatchNorm": "it normalises by statistics of the batch",
    "Linear8bitLt": "LLM.int8 chooses its outlier columns over all rows of the batch",
    "Experts": "experts are evaluated on batches made of several examples",
    "SparseMoe": "experts are evaluated on batches made of several examples",
    "SparseMLP": "experts are evaluated on batches made of several examples",
    "MoE": "experts are evaluated on batches made of several examples",
    "DynamicallyQuantized": "its activation scale is taken over the batch",
}


class CouplingError(ValueError):
    """A model that cannot be trained privately, with the offending module's path."""


def refuse_coupling(model: nn.Module) -> None:
    """Raise CouplingError for the first module that couples examples by design."""
    for path, module in model.named_modules():
        for part, reason in _COUPLING.items():
            if part in type(module).__name__:
                raise CouplingError(
                    f"model.name: {path} is a {type(module).__name__} and couples the examples of "
                    f"a batch: {reason}. Accepted: models whose layers treat rows separately."
                )
        if getattr(module, "rope_type", None) == "dynamic":
            raise CouplingError(
                f"model.name: {path} has dynamic rotary positions and couples the examples of a "
                "run: they depend on the longest text seen before. Accepted: rope_type default, "
                "linear, yarn or llama3."
            )
