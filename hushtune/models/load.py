"""Load a model with its tokenizer and its read-out, from a folder or from the hub."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hushtune.config import ConfigError, DataConfig, ModelConfig, TaskConfig
from hushtune.models.isolation import refuse_coupling
from hushtune.models.offload import WITHOUT_WEIGHTS, stored, stream
from hushtune.models.quantised import (
    prepare_stored,
    quantise,
    stored_quantisation,
    stored_tensors,
)
from hushtune.models.reading import ReadOutKind, make_readout, readout_kind
from hushtune.tasks.readouts import ReadOut
from hushtune.zo.directions import Directions

#: Libraries that note at import which of their optional parts are not there.
_TALKATIVE = ("torchao", "bitsandbytes", "torch.utils._pytree")

_DTYPES = {
    "auto": torch.float32,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass
class LoadedModel:
    """A model as it comes from its checkpoint, ready to be read out.

    Attributes:
        readout: turns texts into scores; `readout.model` is the module to tune.
        kind: which read-out it is.
        tokenizer: as transformers loads it.
        base_hash: SHA-256 over the checkpoint's tensors as loaded, before they are quantised.
        new_parameters: names of parameters that no checkpoint holds.
    """

    readout: ReadOut
    kind: ReadOutKind
    tokenizer: Any
    base_hash: str
    new_parameters: tuple[str, ...]

    @property
    def model(self) -> nn.Module:
        """The module to tune."""
        return self.readout.model


def load_model(model: ModelConfig, task: TaskConfig, data: DataConfig, *, seed: int) -> LoadedModel:
    """Load the model, in evaluation mode, with parameters that are new drawn publicly.

    Args:
        model: which one, and how it is held in memory.
        task: what it is to do.
        data: how long texts are, and whether they are pairs; nothing is read.
        seed: the public seed, for heads that the checkpoint does not hold.

    Raises:
        ConfigError: the model cannot be loaded, or its tokenizer does not fit the task.
        CouplingError: the model couples the examples of a batch.
    """
    if (model.name.startswith((".", "/", "~")) or model.name.count("/") > 1) and not os.path.isdir(
        model.name
    ):
        raise ConfigError(
            f"model.name: {model.name} is not accepted, there is no such folder; it must be a "
            "folder written by save_pretrained, or a name on the hub."
        )
    config = hub_call(model.name, "AutoConfig")
    kind = readout_kind(config, task)
    tokenizer = hub_call(model.name, "AutoTokenizer")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.padding_side = "right"

    quantised_by = stored_quantisation(model.name, config, model.quantise)
    if quantised_by is not None and model.offload != "none":
        raise ConfigError(
            f'model.offload: "{model.offload}" is not accepted for a quantised model; it must be '
            "none."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = _loading_options(model, quantised_by, device)
    if kind == "head":
        names = list(task.labels)
        _require_order_of_head(config, names)
        options |= {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
            "ignore_mismatched_sizes": True,
        }
    network, info = hub_call(model.name, _AUTO_CLASSES[kind], **options)
    network.eval()
    if getattr(network.config, "pad_token_id", None) is None:
        # Heads of causal models read the last token that is not padding.
        network.config.pad_token_id = tokenizer.pad_token_id
    refuse_coupling(network)
    _refuse_missing_embeddings(network, tokenizer)
    _refuse_longer_than_positions(network, data.max_length, model.columns_added)
    if quantised_by is not None:
        prepare_stored(network, None if model.dtype == "auto" else _DTYPES[model.dtype])

    new = _new_parameters(network, info)
    if model.offload != "none":
        stream(network, model.offload, device=device, new=new, keep_head=kind == "head")
    if new and kind in ("mask", "continuation", "encoder-decoder"):
        raise ConfigError(
            f"model.name: {model.name} holds no weights for {min(new)}, which reading words off "
            "the model needs; use task.readout: head, or a checkpoint with a language model head."
        )
    base_hash = _base_hash(network, model.name, quantised_by, new)
    if model.quantise != "none":
        quantise(network, model.quantise, dtype=_DTYPES[model.dtype], device=device, new=new)
    _draw(network, new, seed)
    readout = make_readout(
        kind, network, tokenizer, task, data, name=model.name, streamed=model.offload != "none"
    )
    return LoadedModel(readout, kind, tokenizer, base_hash, tuple(sorted(new)))


_AUTO_CLASSES: dict[str, str] = {
    "mask": "AutoModelForMaskedLM",
    "continuation": "AutoModelForCausalLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
    "head": "AutoModelForSequenceClassification",
    "descriptions": "AutoModel",
}


def _loading_options(
    model: ModelConfig, quantised_by: str | None, device: torch.device
) -> dict[str, Any]:
    """How transformers is to load the weights, so that they are in memory once.

    On a CPU it maps the file, and copies only what changes its number format; to a GPU it moves
    one tensor after the other. What is to be quantised stays in the file until then.
    """
    options: dict[str, Any] = {"dtype": _DTYPES[model.dtype], "output_loading_info": True}
    if model.quantise != "none" or (quantised_by is not None and model.dtype == "auto"):
        options["dtype"] = "auto"
    if model.offload == "disk":
        options |= WITHOUT_WEIGHTS
    elif model.offload == "none" and model.quantise == "none" and device.type != "cpu":
        options["device_map"] = {"": device}
    return options


def _base_hash(network: nn.Module, name: str, quantised_by: str | None, new: set[str]) -> str:
    """SHA-256 over the base model's tensors, whatever may quantise them after.

    Of a float checkpoint, as loaded: in `model.dtype`, or as stored where it will be quantised. Of
    one that is quantised on disk, as stored, since libraries hold these in forms of their own.
    """
    if quantised_by is not None:
        return hash_tensors(stored_tensors(name))
    state = network.state_dict(keep_vars=True)  # what is streamed is known by its parameter
    return hash_tensors((key, tensor) for key, tensor in state.items() if key not in new)


def _require_order_of_head(config: Any, names: list[str]) -> None:
    """A head that knows these labels scores them in its own order."""
    known = [name for _, name in sorted((config.id2label or {}).items())]
    if known != names and sorted(map(str.lower, known)) == sorted(map(str.lower, names)):
        raise ConfigError(
            f"task.labels: the model's head has these labels in another order or spelling; write "
            f"them as {', '.join(known)}, or choose another checkpoint."
        )


def hub_call(name: str, auto_class: str, **options: Any) -> Any:
    """`transformers.<auto_class>.from_pretrained(name)`, quiet, with errors in one line."""
    # Tokenizer warnings would print the lengths of private texts.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return getattr(transformers, auto_class).from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"model.name: {name} is not accepted by {auto_class} ({first_line}); it must be a "
            "folder written by save_pretrained, or a name on the hub."
        ) from None


def _refuse_missing_embeddings(network: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer that knows tokens which the model has no embedding for.

    A text with such a token would end the run, and the ledger would tell that it was sampled.
    """
    rows = network.get_input_embeddings().weight.shape[0]
    beyond = [token for token, number in tokenizer.get_vocab().items() if number >= rows]
    if beyond:
        raise ConfigError(
            f"model.name: its tokenizer has {len(beyond)} tokens, such as {min(beyond)!r}, beyond "
            f"the model's {rows} embeddings; resize the embeddings and save the model again."
        )


def _refuse_longer_than_positions(network: Any, max_length: int, added: int) -> None:
    """Refuse texts longer than the model has positions.

    Args:
        added: virtual tokens in front of a text, each of which takes a position.
    """
    positions = positions_of(network)
    # The last column of a micro-batch is padding, yet it has a position as well.
    if positions is not None and max_length + added > positions:
        beside = f" with {added} virtual tokens" if added else ""
        raise ConfigError(
            f"data.max_length: {max_length} is not accepted{beside}; the model has {positions} "
            "positions."
        )


def positions_of(network: Any) -> int | None:
    """How many positions a model has; None where they are relative and have no end."""
    text_config = network.config.get_text_config()
    positions = getattr(text_config, "max_position_embeddings", None)
    for name, module in network.named_modules():
        # RoBERTa counts positions from the one after its padding token's number.
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            positions = module.num_embeddings - padding - 1
    return positions


def _new_parameters(network: nn.Module, info: dict[str, Any]) -> set[str]:
    """Names of parameters that transformers had to make up."""
    mismatched = {entry[0] for entry in info.get("mismatched_keys", ())}
    named = dict(network.named_parameters())
    return {name for name in set(info["missing_keys"]) | mismatched if name in named}


def _draw(network: Any, names: set[str], seed: int) -> None:
    """Initialise new parameters from the public generator, so that replay can repeat it."""
    draw = Directions(seed, {}, "rademacher")
    spread = getattr(network.config, "initializer_range", 0.02)
    for name, parameter in network.named_parameters():
        if name not in names:
            continue
        if parameter.dim() == 1:
            value = torch.full_like(parameter, 0.0 if name.endswith("bias") else 1.0)
        else:
            value = draw.initial_normal(name, parameter.shape, spread)
        with torch.no_grad():
            parameter.copy_(value)


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        plain = stored(tensor).detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        content: Any = plain.reshape(-1).view(torch.uint8).numpy()  # arrays are buffers
        digest.update(content)
    return digest.hexdigest()
