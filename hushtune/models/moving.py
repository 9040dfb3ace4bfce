"""Which parameters move: all of them, adapters, the last layers, the head, the biases."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hushtune.config import ADAPTERS, ConfigError, LoraConfig
from hushtune.models.quantised import is_quantised, is_quantised_tensor
from hushtune.zo.directions import Directions

if TYPE_CHECKING:
    from hushtune.models.load import LoadedModel

#: PEFT's task type by the read-out, so that the adapter folder says what it is for.
TASK_TYPES = {
    "mask": None,
    "continuation": "CAUSAL_LM",
    "encoder-decoder": "SEQ_2_SEQ_LM",
    "head": "SEQ_CLS",
    "descriptions": "FEATURE_EXTRACTION",
}


def add_adapters(loaded: LoadedModel, kind: str, lora: LoraConfig, seed: int) -> None:
    """Give the model adapters, initialised from the public generator, that change nothing yet.

    Of LoRA and DoRA (Liu et al., 2024), B is zero, and A uniform as PEFT would draw it; DoRA's
    magnitudes are those of the weights. IA³ (Liu et al., 2022) multiplies by one. A classification
    head, and anything else that no checkpoint holds, moves and is saved as a whole.

    Args:
        kind: one of `ADAPTERS`, but for `VIRTUAL`.

    Raises:
        ConfigError: if no layer of the model has one of the names in `target_modules`.
    """
    from transformers.pytorch_utils import Conv1D

    network = base_network(loaded)
    settings: dict[str, Any] = {
        "task_type": TASK_TYPES[loaded.kind],
        "target_modules": list(lora.target_modules) or None,
        "modules_to_save": whole_modules(loaded),
        # GPT-2 keeps its weights transposed.
        "fan_in_fan_out": any(isinstance(module, Conv1D) for module in network.modules()),
    }
    if kind != "ia3":
        settings |= {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": 0.0}
        settings["use_dora"] = kind == "dora"
    try:
        adapted = _with_adapter(network, kind, settings)
    except ValueError as error:
        if lora.target_modules:
            raise ConfigError(f"model.lora.target_modules: {error}") from None
        if kind == "ia3":
            raise ConfigError(
                "model.tune: ia3 has no default layers for this model; name them in "
                "model.lora.target_modules."
            ) from None
        # An architecture that PEFT has no default for.
        adapted = _with_adapter(network, kind, settings | {"target_modules": "all-linear"})
    cast_adapters(adapted, lora)
    _draw_adapters(adapted, seed)
    replace_network(loaded, adapted)


def base_network(loaded: LoadedModel) -> nn.Module:
    """What adapters go into: of a sentence encoder with its label vectors, the encoder."""
    model: Any = loaded.model
    return model.encoder if loaded.kind == "descriptions" else model


def replace_network(loaded: LoadedModel, adapted: nn.Module) -> None:
    """Put the network with adapters where `base_network` took it from."""
    readout: Any = loaded.readout
    if loaded.kind == "descriptions":
        readout.model.encoder = adapted.eval()
    else:
        readout.model = adapted.eval()


def _with_adapter(model: nn.Module, kind: str, settings: dict[str, Any]) -> Any:
    import peft

    make: Any = peft.IA3Config if kind == "ia3" else peft.LoraConfig
    if kind == "ia3" and settings["target_modules"]:
        # What is named is scaled behind the layer; PEFT's defaults know feed-forward layers.
        settings = settings | {"feedforward_modules": []}
    return with_peft(model, make(**settings))


def with_peft(model: nn.Module, config: Any) -> Any:
    """The model with PEFT's adapters of this configuration in it."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model, config)  # type: ignore[arg-type]


def whole_modules(loaded: LoadedModel) -> list[str] | None:
    """Paths of the modules that move as they are beside the adapters."""
    if loaded.kind == "descriptions":
        return None
    model = loaded.model
    names = set(loaded.new_parameters)
    if loaded.kind == "head":
        names |= {name.split(".")[0] + "." for name in _head_parameters(model)}
    modules = sorted(name.rpartition(".")[0] for name in names)
    # A module that is inside another one is saved with it.
    return [m for m in modules if not any(m.startswith(f"{other}.") for other in modules)] or None


def cast_adapters(adapted: nn.Module, lora: LoraConfig) -> None:
    """Give the adapters their number format, which PEFT does not leave as it was."""
    dtype = torch.bfloat16 if lora.dtype == "bfloat16" else torch.float32
    for name, parameter in adapted.named_parameters():
        if _of_adapter(name):
            parameter.data = parameter.data.to(dtype)


def _of_adapter(name: str) -> bool:
    return ".lora_" in name or ".ia3_" in name or "prompt_encoder." in name


def _draw_adapters(adapted: nn.Module, seed: int) -> None:
    """Draw what PEFT drew from a generator that nobody can repeat."""
    draw = Directions(seed, {}, "rademacher")
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name:
            # kaiming_uniform with a = √5, the initialisation of nn.Linear: bound 1 / √inputs.
            value = draw.initial_uniform(name, parameter.shape, parameter[0].numel() ** -0.5)
        elif ".lora_embedding_B." in name:
            value = draw.initial_normal(name, parameter.shape, 1.0)
        else:
            continue
        parameter.data.copy_(value)


def moving_parameters(loaded: LoadedModel, tune: str) -> dict[str, nn.Parameter]:
    """The parameters that move, by name, in the model's own order; tied ones once.

    What no checkpoint holds moves always: a head that stays as it was drawn is of no use.

    Raises:
        ConfigError: if the model has no such parameters, or they are quantised.
    """
    model = loaded.model
    if tune not in ADAPTERS and is_quantised(model):
        raise ConfigError(
            f"model.tune: {tune} is not accepted for a quantised model; it must be "
            "lora, prompt or prefix."
        )
    named = dict(model.named_parameters())
    if tune == "full":
        chosen = set(named)
    elif tune in ADAPTERS:
        chosen = {name for name in named if _of_adapter(name) or ".modules_to_save." in name}
    elif tune == "bias":
        chosen = {name for name in named if name.rsplit(".", 1)[-1] == "bias"}
    elif tune == "head":
        chosen = _head_parameters(model)
    else:
        chosen = _last_layers(model, int(tune.removeprefix("last-"))) | _head_parameters(model)
    if not chosen:
        raise ConfigError(
            f"model.tune: {tune} is not accepted for this model, which has no such parameters "
            "(a head that shares its weights with the embeddings is none); it must be one of "
            f"full, {', '.join(ADAPTERS)}, head, bias, last-N."
        )
    chosen |= {name for name in named if name in loaded.new_parameters or name == "label_vectors"}
    for name, parameter in named.items():
        parameter.requires_grad_(False)
        if name in chosen and is_quantised_tensor(parameter):
            raise ConfigError(
                f"model.name: {name}, which has to move, is quantised; quantise a checkpoint that "
                "holds it, or leave it out of what is quantised."
            )
    return {name: parameter for name, parameter in named.items() if name in chosen}


def _head_parameters(model: Any) -> set[str]:
    """Names of the parameters after the base model, those it shares with the base model aside."""
    named = dict(model.named_parameters())
    if "label_vectors" in named:
        return {"label_vectors"}
    base = getattr(model, model.base_model_prefix, None)
    if base is None:
        # Some models, such as T5, have no module for what is below the head.
        head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
        shared = {id(parameter) for parameter in embeddings.parameters()}
        own = {id(parameter) for parameter in head.parameters()} - shared if head else set()
        return {name for name, parameter in named.items() if id(parameter) in own}
    inside = {id(parameter) for parameter in base.parameters()}
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
