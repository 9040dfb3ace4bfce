"""Bases whose linear layers are kept in four or eight bits; adapters beside them move.

A float checkpoint is opened without being copied, and its linear layers are quantised one after the
other, so that never more than one of them is there in both forms. What is quantised when it is read
and what was quantised before it was saved are treated alike from then on.

    nf4     bitsandbytes   4 bits and a float32 scale for 64 weights   CPU and CUDA
    int8    torchao        8 bits and a float32 scale for an output    CPU and CUDA
    int4    torchao        4 bits, scale and zero point for 64 weights CPU; CUDA in bfloat16 only

All of them quantise weights alone, and compute with what the weights stand for in `model.dtype`:
nothing is chosen from the rows of a batch. LLM.int8() chooses columns from them, and is refused.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from hushtune.config import ConfigError
from hushtune.memory import give_back
from hushtune.models.isolation import LLM_INT8, CouplingError

#: Weights that share a scale in `int4`.
_GROUP = 64

#: What the kernels ask of a layer's numbers of inputs and outputs.
_MULTIPLES = {"nf4": (64, 1), "int8": (1, 1), "int4": (_GROUP, 16)}

_LIBRARIES = {"nf4": "bitsandbytes", "int8": "torchao", "int4": "torchao"}


def stored_quantisation(name: str, config: Any, asked: str) -> str | None:
    """The library that a checkpoint was quantised with; None for a float checkpoint.

    Args:
        config: the model's configuration as transformers reads it.
        asked: `model.quantise`.

    Raises:
        CouplingError: if it was quantised in a way that couples examples.
        ConfigError: if it was quantised in a way that is not known not to, or shall be once more.
    """
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    settings = found if isinstance(found, dict) else found.to_dict()
    library = str(getattr(settings.get("quant_method"), "value", settings.get("quant_method")))
    if settings.get("load_in_8bit"):
        raise CouplingError(
            f"model.name: {name} is quantised by LLM.int8() and couples the examples of a batch: "
            f"{LLM_INT8}. Accepted: nf4 or torchao's weight-only int8 and int4."
        )
    if library not in _LIBRARIES.values():
        raise ConfigError(
            f"model.name: {name} is quantised by {library}; it must be a float checkpoint, or "
            "quantised by bitsandbytes in 4 bits or by torchao."
        )
    if asked != "none":
        raise ConfigError(
            f'model.quantise: "{asked}" is not accepted; {name} is quantised already, so that it '
            "must be none."
        )
    return library


def quantise(
    network: Any, method: str, *, dtype: torch.dtype, device: torch.device, new: Iterable[str]
) -> None:
    """Quantise the linear layers in place, one by one; move and convert everything else.

    Embeddings, the output layer, tied weights, what transformers keeps in 32 bits and layers whose
    width does not fit stay floats, as with transformers' own quantisers.

    Args:
        method: nf4, int8 or int4.
        dtype: of the layers before they are quantised and of all other parameters.
        new: names of parameters that no checkpoint holds; their layers stay floats.

    Raises:
        ConfigError: if the library is not installed, cannot do it on this device, or no layer fits.
    """
    make = _maker(method, dtype, device)
    names = list(_to_quantise(network, method, new))
    if not names:
        inputs, outputs = _MULTIPLES[method]
        raise ConfigError(
            f'model.quantise: "{method}" is not accepted for this model; it must be none, or the '
            f"model have linear layers of {inputs}·n inputs and {outputs}·n outputs."
        )
    for name in names:
        network.set_submodule(name, make(network.get_submodule(name)))
        give_back()  # or each layer's temporaries would stay with this process
    kept = getattr(network, "_keep_in_fp32_modules_strict", None) or ()
    for name, parameter in network.named_parameters():
        if not is_quantised_tensor(parameter) and not any(part in name for part in kept):
            parameter.data = parameter.data.to(dtype)
    network.to(device)
    network.is_loaded_in_4bit = method == "nf4"  # PEFT asks


def prepare_stored(network: Any, dtype: torch.dtype | None) -> None:
    """Make a checkpoint that was quantised before compute as one that is quantised here.

    Args:
        dtype: None takes what it was quantised from.

    Raises:
        ConfigError: if it was quantised from another dtype, and cannot compute in this one.
    """
    floats = [p.dtype for p in network.parameters() if not is_quantised_tensor(p)]
    wanted = dtype or floats[0]
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if type(module).__name__ == "Linear4bit":
            _compute_in(module, wanted)
        elif isinstance(weight, Tensor) and is_quantised_tensor(weight) and weight.dtype != wanted:
            raise ConfigError(
                f'model.dtype: "{str(wanted).removeprefix("torch.")}" is not accepted for a model '
                f"that was quantised from {weight.dtype}; it must be that or auto."
            )


def is_quantised_tensor(parameter: Tensor) -> bool:
    """Whether it holds codes and not the weights themselves."""
    return not parameter.is_floating_point() or is_traceable_wrapper_subclass(parameter)


def is_quantised(network: nn.Module) -> bool:
    """Whether any parameter is."""
    return any(map(is_quantised_tensor, network.parameters()))


def stored_tensors(name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint as they are on disk, by name, without reading them yet.

    Raises:
        ConfigError: if it is not kept in safetensors.
    """
    path = _file(name, "model.safetensors.index.json")
    if path is None:
        files = {"model.safetensors"}
    else:
        with open(path, encoding="utf-8") as index:
            files = set(json.load(index)["weight_map"].values())
    for file in sorted(files):
        path = _file(name, file)
        if path is None:
            raise ConfigError(
                f"model.name: {name} has no {file}; a quantised model must be in safetensors."
            )
        with safe_open(path, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                yield key, tensors.get_tensor(key)


def _file(name: str, file: str) -> str | None:
    from transformers.utils.hub import cached_file

    return cached_file(
        name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _to_quantise(network: Any, method: str, new: Iterable[str]) -> Iterator[str]:
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = [*get_keys_to_not_convert(network), *(network._keep_in_fp32_modules or ())]
    kept += [name.rpartition(".")[0] for name in new]
    inputs, outputs = _MULTIPLES[method]
    for name, module in network.named_modules():
        fits = type(module) is nn.Linear and (
            module.in_features % inputs == 0 and module.out_features % outputs == 0
        )
        if fits and should_convert_module(name, kept):
            yield name


def _maker(
    method: str, dtype: torch.dtype, device: torch.device
) -> Callable[[nn.Linear], nn.Module]:
    """Makes a quantised layer of a float one."""
    library = _LIBRARIES[method]
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f'model.quantise: "{method}" needs {library}, which hushtune[quantised] installs.'
        )
    if method == "nf4":
        return lambda linear: _nf4(linear, dtype, device)
    chosen = _int8() if method == "int8" else _int4(dtype, device)

    def make(linear: nn.Linear) -> nn.Module:
        from torchao.quantization import quantize_

        linear = linear.to(device, dtype)
        quantize_(linear, chosen, filter_fn=lambda *_: True)
        return linear

    return make


def _nf4(linear: nn.Linear, dtype: torch.dtype, device: torch.device) -> nn.Module:
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    made: Any = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=dtype,
        compress_statistics=False,
        quant_type="nf4",
        device="meta",
    )
    make: Any = Params4bit
    weight = make(
        linear.weight.detach().to(dtype),
        requires_grad=False,
        compress_statistics=False,
        quant_type="nf4",
        module=made,
    )
    made.weight = weight.to(device)
    made.bias = linear.bias
    _compute_in(made, dtype)
    return made.train(linear.training)


def _compute_in(layer: Any, dtype: torch.dtype) -> None:
    layer.compute_dtype = dtype
    layer.compute_type_is_set = True
    # Else some CPUs round scales and activations to bfloat16 whatever the dtype, repack the weights
    # in the first forward pass, and leave no record for `parameters_reached` to follow.
    layer.support_avx512bf16_for_cpu = False


def _int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    # The recommended settings would change the precision of every other product in the process.
    return Int8WeightOnlyConfig(set_inductor_config=False)


def _int4(dtype: torch.dtype, device: torch.device) -> Any:
    if device.type == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=_GROUP, set_inductor_config=False)
    if dtype != torch.bfloat16:
        raise ConfigError(
            'model.dtype: "float32" is not accepted with model.quantise int4 on a GPU; it must be '
            "bfloat16."
        )
    from torchao.quantization import Int4WeightOnlyConfig
    from torchao.quantization.quantize_.workflows import Int4PackingFormat

    return Int4WeightOnlyConfig(
        group_size=_GROUP,
        int4_packing_format=Int4PackingFormat.TILE_PACKED_TO_4D,
        set_inductor_config=False,
    )
