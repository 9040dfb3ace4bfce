"""The model that a configuration or a ledger's header names, and which of its parameters move."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from hushtune.config import ADAPTERS, VIRTUAL, Config
from hushtune.models.load import LoadedModel, load_model
from hushtune.models.moving import add_adapters, moving_parameters
from hushtune.models.offload import refuse_moving_files
from hushtune.models.prompts import add_virtual_tokens
from hushtune.privacy.ledger import LedgerError
from hushtune.probe import LABEL_VECTORS

#: A model, what of it moves in a word, and the moving parameters by name.
Moving = tuple[LoadedModel, str, dict[str, nn.Parameter]]

#: Versions that the numbers of a run depend on.
VERSIONED = ("hushtune", "torch", "transformers", "peft", "opendp", "numpy", "scipy")


def load_base(
    config: Config, header: Mapping[str, Any], *, model: str | None = None
) -> tuple[Config, LoadedModel, str, dict[str, nn.Parameter]]:
    """The model that a ledger began with, as it was; with the configuration that names it.

    Args:
        config: the header's.
        model: where the base model is, if not where it was.

    Raises:
        LedgerError: if it is another one.
    """
    if model is not None:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, name=model))
    loaded, tune, parameters = load_moving(config)
    if loaded.base_hash != header["base_sha256"]:
        raise LedgerError(
            f"{config.model.name}: not the base model of this ledger; the SHA-256 of its weights "
            f"is {loaded.base_hash[:16]}…, the ledger began with {header['base_sha256'][:16]}…"
        )
    _unpack_label_vectors(loaded, header["label_vectors"])
    return config, loaded, tune, parameters


def load_moving(config: Config) -> Moving:
    """The model, with adapters where asked for, and the parameters that move."""
    loaded = load_model(config.model, config.task, config.data, seed=config.seed)
    tune = config.model.tune
    if tune == "auto":
        tune = "head" if loaded.kind in ("descriptions", "head") else "lora"
    if tune in VIRTUAL:
        add_virtual_tokens(loaded, config.model, config.seed)
    elif tune in ADAPTERS:
        add_adapters(loaded, tune, config.model.lora, config.seed)
    parameters = moving_parameters(loaded, tune)
    refuse_moving_files(tune, config.model.offload, parameters)
    return loaded, tune, parameters


def is_head(parameters: Mapping[str, nn.Parameter]) -> bool:
    """Whether nothing moves but an encoder's label vectors."""
    return set(parameters) == {LABEL_VECTORS}


def pack_label_vectors(loaded: LoadedModel) -> str | None:
    """The starting label vectors, for a header.

    They come from forward passes, whose bits machines differ in.
    """
    vectors = getattr(loaded.model, LABEL_VECTORS, None)
    if vectors is None:
        return None
    return base64.b64encode(vectors.detach().cpu().numpy().astype("<f4").tobytes()).decode()


def _unpack_label_vectors(loaded: LoadedModel, packed: str | None) -> None:
    if packed is None:
        return
    vectors: Any = getattr(loaded.model, LABEL_VECTORS)
    values = np.frombuffer(base64.b64decode(packed), dtype="<f4").reshape(vectors.shape)
    with torch.no_grad():
        vectors.copy_(torch.from_numpy(values.copy()))
