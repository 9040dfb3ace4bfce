"""Models whose weights do not fit: a module's weights are there while the module runs.

The weights are in host memory (`cpu`) or stay in the checkpoint's own files (`disk`). A hook of
accelerate's fetches those of a module just before its forward pass and lets go of them after it.
At rest a parameter has its shape, dtype and device and no memory. It is the same object all the
time, so that whatever knows it by identity goes on doing so: ties, adapters, substitution.

At rest a parameter is NaN. A model that reads a module's weights without running the module then
has no finite loss, and the probe refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_submodules
from torch import Tensor, nn

from hushtune.config import ConfigError

#: Attribute of a streamed parameter: returns its value.
_SOURCE = "hushtune_source"

#: What `from_pretrained` takes so that it builds the model without its weights.
WITHOUT_WEIGHTS: dict[str, Any] = {"device_map": {"": "disk"}}


class _Fetch(ModelHook):
    """Puts the weights of a module in place for its forward pass."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._at_rest = [(parameter, parameter.data) for parameter in parameters]

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # Neither is the assignment an operation that should see moved parameters, nor may what
        # outlives this pass be a tensor that only inference mode can use.
        with torch.inference_mode(False), torch._C.DisableTorchFunction():
            for parameter, empty in self._at_rest:
                parameter.data = stored(parameter).to(empty.device)
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        with torch.inference_mode(False), torch._C.DisableTorchFunction():
            for parameter, empty in self._at_rest:
                parameter.data = empty
        return output


def stream(
    network: Any, offload: str, *, device: torch.device, new: Collection[str], keep_head: bool
) -> None:
    """Let go of the weights of `network` until its modules run.

    Weights that no checkpoint holds stay in memory, as do integers.

    Args:
        network: as transformers loads it; for `disk` with the options `WITHOUT_WEIGHTS`.
        offload: cpu | disk.
        device: where modules run.
        new: names of parameters that no checkpoint holds. For `disk` they are not initialised.
        keep_head: whether what is above the base model stays in memory as well.
    """
    named = dict(network.named_parameters(remove_duplicate=False))
    sources = _in_files(network) if offload == "disk" else _in_memory(named)
    below = f"{network.base_model_prefix}." if keep_head else ""
    renewed: dict[int, nn.Parameter] = {}  # by the old one, of which `named` keeps all

    def renew(name: str, old: nn.Parameter) -> nn.Parameter:
        source = None if name in new else sources[name]
        if source is None:
            value = old.new_empty(old.shape, device=device) if old.is_meta else old.to(device)
            return nn.Parameter(value, requires_grad=False)
        if not name.startswith(below) or not old.is_floating_point():
            return nn.Parameter(source().to(device, copy=True), requires_grad=False)
        nothing = torch.full((), torch.nan, dtype=old.dtype, device=device).expand(old.shape)
        parameter = nn.Parameter(nothing, requires_grad=False)
        setattr(parameter, _SOURCE, source)
        return parameter

    for path, module in network.named_modules():
        own = {name: old for name, old in module._parameters.items() if old is not None}
        for name, old in own.items():
            if id(old) not in renewed:
                renewed[id(old)] = renew(f"{path}.{name}" if path else name, old)
            module._parameters[name] = renewed[id(old)]
        streamed = [renewed[id(old)] for old in own.values() if is_streamed(renewed[id(old)])]
        if streamed:
            add_hook_to_module(module, _Fetch(streamed), append=True)
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer if buffer is None else buffer.to(device)


def _in_memory(named: Mapping[str, nn.Parameter]) -> dict[str, Callable[[], Tensor]]:
    return {name: parameter.detach for name, parameter in named.items()}


def _in_files(network: Any) -> dict[str, Callable[[], Tensor]]:
    """By the names of parameters, what reads them from the checkpoint as `dtype` has them."""
    hooks = [module._hf_hook for module in network.modules() if hasattr(module, "_hf_hook")]
    aligning = [each for hook in hooks for each in getattr(hook, "hooks", (hook,))]
    views = [hook.weights_map for hook in aligning if hook.weights_map is not None]
    weights = views[0].dataset  # each module's view is of the whole model's map
    # transformers' hooks exchange the parameters for others, and run on the CPU alone.
    for hook in aligning:
        hook.offload = False  # or it would fetch the weights for good
    remove_hook_from_submodules(network)
    for module in network.modules():
        vars(module).pop("forward", None)  # left behind; it would look like somebody's own
    del network.hf_device_map  # PEFT would go by it
    return {name: lambda name=name: weights[name] for name in weights}


def is_streamed(tensor: Tensor) -> bool:
    """Whether the tensor is a parameter that has its values only while its module runs."""
    return hasattr(tensor, _SOURCE)


def streams(model: nn.Module) -> bool:
    """Whether any weights of the model are fetched for each forward pass."""
    return any(map(is_streamed, model.parameters()))


def stored(tensor: Tensor) -> Tensor:
    """A streamed parameter's values, where they are kept: from `disk` a copy; else the tensor."""
    source = getattr(tensor, _SOURCE, None)
    return tensor if source is None else source()


def whole_state(network: nn.Module) -> dict[str, Any]:
    """What `save_pretrained` takes to save all weights of a network that streams them."""
    if not streams(network):
        return {}
    state = network.state_dict(keep_vars=True)
    values = {id(tensor): stored(tensor).detach() for tensor in state.values()}  # ties stay ties
    return {"state_dict": {name: values[id(tensor)] for name, tensor in state.items()}}


def refuse_moving_files(tune: str, offload: str, parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse to move what stays in the checkpoint's files.

    Raises:
        ConfigError: if that is asked for.
    """
    if offload == "disk" and any(map(is_streamed, parameters.values())):
        raise ConfigError(
            f"model.offload: disk is not accepted with model.tune {tune}, which moves weights that "
            "stay in the checkpoint's files; it must be cpu or none, or model.tune lora."
        )
