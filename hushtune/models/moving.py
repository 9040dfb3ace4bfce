"""Which parameters move: all of them, adapters, the last layers, the head, the biases."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import torch
from torch import nn

from hushtune.config import ConfigError, LoraConfig
from hushtune.zo.directions import Directions

#: PEFT's task type by the read-out, so that the adapter folder says what it is for.
_TASK_TYPES = {
    "mask": None,
    "continuation": "CAUSAL_LM",
    "encoder-decoder": "SEQ_2_SEQ_LM",
    "head": "SEQ_CLS",
    "descriptions": "FEATURE_EXTRACTION",
}


def add_lora(model: nn.Module, lora: LoraConfig, readout: str, seed: int) -> nn.Module:
    """The model with LoRA adapters, initialised from the public generator.

    Adapters start as zero: B is zero, and A uniform as PEFT would draw it.

    Raises:
        ConfigError: if no layer of the model has one of the names in `target_modules`.
    """
    settings: dict[str, Any] = {
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "task_type": _TASK_TYPES[readout],
        "target_modules": list(lora.target_modules) or None,
    }
    try:
        adapted = _with_adapter(model, settings)
    except ValueError as error:
        if lora.target_modules:
            raise ConfigError(f"model.lora.target_modules: {error}") from None
        # An architecture that PEFT has no default for.
        adapted = _with_adapter(model, settings | {"target_modules": "all-linear"})
    draw = Directions(seed, {}, "rademacher")
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name:
            # kaiming_uniform with a = √5, the initialisation of nn.Linear: bound 1 / √inputs.
            bound = 1.0 / math.sqrt(parameter.shape[1])
            value = draw.initial_uniform(name, parameter.shape, bound)
            parameter.data.copy_(value)
    return adapted.eval()


def _with_adapter(model: nn.Module, settings: dict[str, Any]) -> nn.Module:
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model, peft.LoraConfig(**settings))  # type: ignore[arg-type]


def moving_parameters(model: nn.Module, tune: str) -> dict[str, nn.Parameter]:
    """The parameters that move, by name, in the model's own order; tied ones once.

    Raises:
        ConfigError: if the model has no such parameters.
    """
    named = dict(model.named_parameters())
    if tune == "full":
        chosen = set(named)
    elif tune == "lora":
        chosen = {name for name in named if ".lora_" in name or ".modules_to_save." in name}
    elif tune == "bias":
        chosen = {name for name in named if name.rsplit(".", 1)[-1] in ("bias", "beta")}
    elif tune == "head":
        chosen = _outside_base(model, named)
    else:
        chosen = _last_layers(model, int(tune.removeprefix("last-"))) | _outside_base(model, named)
    chosen |= {name for name in named if name.endswith("label_vectors")}
    if not chosen:
        raise ConfigError(
            f"model.tune: {tune} is not accepted for this model, which has no such parameters; "
            "it must be one of full, lora, head, bias, last-N."
        )
    for name, parameter in named.items():
        parameter.requires_grad_(False)
        if name in chosen and not torch.is_floating_point(parameter):
            raise ConfigError(f"model.tune: {tune} would move {name}, which is quantised; use lora.")
    return {name: parameter for name, parameter in named.items() if name in chosen}


def _outside_base(model: Any, named: dict[str, nn.Parameter]) -> set[str]:
    """Parameters that are not part of the base model: those of its head."""
    if hasattr(model, "label_vectors"):
        return {"label_vectors"}
    base = getattr(model, "base_model", model)
    inside = {id(parameter) for parameter in base.parameters()} if base is not model else set()
    return {name for name, parameter in named.items() if id(parameter) not in inside}


def _last_layers(model: nn.Module, count: int) -> set[str]:
    """Parameters of the last `count` layers of each stack of layers."""
    chosen: set[str] = set()
    stacks = {
        path: stack
        for path, stack in model.named_modules()
        if isinstance(stack, nn.ModuleList) and not re.search(r"\.\d+\.", path)
    }
    for path, stack in stacks.items():
        if count > len(stack):
            raise ConfigError(
                f"model.tune: last-{count} is not accepted; {path} has {len(stack)} layers."
            )
        for index in range(len(stack) - count, len(stack)):
            prefix = f"{path}.{index}."
            chosen |= {name for name, _ in model.named_parameters() if name.startswith(prefix)}
    return chosen
