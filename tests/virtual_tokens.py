"""Models with virtual tokens, and what their losses are by hand: from what plain PEFT returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import tiny_models
import torch
from torch import Tensor
from torch.nn import functional

from hushtune.config import Config, from_values
from hushtune.loading import load_moving
from hushtune.models.load import LoadedModel
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import LabelledText
from hushtune.tasks.task import TextTask

#: Virtual tokens.
COUNT = 5
TEXTS = ["a very good film", "bad", "the plot was so awful and the actor was never good"]
LABELS = [0, 1, 1]


def configured(
    folder: str, tune: str, words: tuple[str, ...] = tiny_models.SINGLE, **settings: Any
) -> Config:
    labels = {} if "kind" in settings else dict(zip(("no", "yes"), words, strict=True))
    model = {key: settings.pop(key) for key in ("dtype", "quantise", "offload") if key in settings}
    data = {"train": "unused", "max_length": settings.pop("max_length", 56)}
    return from_values(
        {
            "model": {"name": folder, "tune": tune, "virtual_tokens": COUNT, **model},
            "data": data | {"max_completion_length": 8},
            "task": {"labels": labels, **settings},
            "method": {"directions": 4, "steps": 3, "batch": 4.0, "micro_batch_tokens": 256},
            "privacy": {"epsilon": 4.0},
        }
    )


def load(*arguments: Any, **settings: Any) -> LoadedModel:
    """A model whose virtual tokens are large enough to matter."""
    loaded, _, parameters = load_moving(configured(*arguments, **settings))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "prompt_encoder." in name:
                parameter.add_(0.5 * torch.randn_like(parameter))
    return loaded


def losses_of(loaded: LoadedModel, texts: list[Any]) -> Tensor:
    """(rows,) losses in one micro-batch, with padding and a row that is empty."""
    rows = np.arange(len(texts))
    data = LabelledText(texts, np.array(LABELS[: len(texts)]), rows)
    task = TextTask(loaded.readout, data, [Shape(len(texts) + 1, 56)])
    (batch,) = task.micro_batches(rows)
    assert sorted(batch.places) == list(rows)
    with torch.inference_mode():
        return task.losses(batch.inputs)[: len(texts)][np.argsort(batch.places)]


def logits(
    loaded: LoadedModel, ids: list[int], tune: str, after: list[int] | None = None
) -> Tensor:
    """(columns, …) what PEFT returns for one text without padding, virtual columns cut off."""
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
    if after is not None:
        inputs["decoder_input_ids"] = torch.tensor([[0, *after[:-1]]])
    with torch.inference_mode():
        found = loaded.model(**inputs).logits[0]
    in_front = COUNT if tune == "prompt" and after is None else 0
    assert len(found) == in_front + len(ids if after is None else after)
    return found[in_front:]


def log_likelihoods(loaded: LoadedModel, before: list[int], after: list[int], tune: str) -> Tensor:
    """(tokens,) log-likelihoods of `after`, each token's given all before it."""
    if loaded.kind == "encoder-decoder":
        at = logits(loaded, before, tune, after)
    else:
        at = logits(loaded, before + after, tune)[len(before) - 1 : -1]
    return at.double().log_softmax(-1)[range(len(after)), after]


def tokens(loaded: LoadedModel, text: str) -> list[int]:
    """Of a text whose end has not come yet."""
    ids = list(loaded.tokenizer(text)["input_ids"])
    ends = (
        loaded.kind == "continuation" and len(ids) > 1 and ids[-1] == loaded.tokenizer.eos_token_id
    )
    return ids[:-1] if ends else ids


def split(
    loaded: LoadedModel, before: str, after: str, *, end: bool
) -> tuple[list[int], list[int]]:
    """Tokens of a text and of what follows it."""
    last = [loaded.tokenizer.eos_token_id] if end else []
    if loaded.kind == "encoder-decoder":
        return tokens(loaded, before), tokens(loaded, after)
    first, both = tokens(loaded, before), tokens(loaded, f"{before} {after}")
    assert both[: len(first)] == first
    return first, both[len(first) :] + last


def entropies(scores: list[Tensor]) -> Tensor:
    """(rows,) cross-entropies of the labels."""
    return functional.cross_entropy(
        torch.stack(scores).double(), torch.tensor(LABELS[: len(scores)]), reduction="none"
    )
