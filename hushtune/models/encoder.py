"""A sentence encoder with one trainable vector per label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hushtune.config import ConfigError
from hushtune.models.virtual import columns_in_front

#: Inner products are multiplied by this before the softmax; 5 to 20 did about equally well.
LOGIT_SCALE = 10.0


class EncoderClassifier(nn.Module):
    """Scores a text by the inner product of its normalised embedding with each label's vector.

    A label's vector starts as the normalised embedding of the label's description, so that before
    training the score is the cosine, and then moves freely.

    Args:
        encoder: a transformers encoder that returns `last_hidden_state`.
        pooling: "mean" over the text's tokens, or "cls" for the first token.
        label_vectors: (labels, width) float32.
    """

    def __init__(self, encoder: nn.Module, pooling: str, label_vectors: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.label_vectors: nn.Parameter = nn.Parameter(label_vectors)

    def features(self, **inputs: Tensor) -> Tensor:
        """(rows, width) float32 embeddings of unit length; see `embed`."""
        return embed(self.encoder, self.pooling, **inputs)

    def forward(self, **inputs: Tensor) -> Tensor:
        """(rows, labels) scores; see `embed`."""
        # A matrix product so small is added up in ways that differ from row to row on some
        # processors, and rows would have to go through one by one. This is as fast.
        features = self.features(**inputs).unsqueeze(1)
        return LOGIT_SCALE * (features * self.label_vectors).sum(dim=-1)


def label_scores(features: Tensor, label_vectors: Tensor) -> Tensor:
    """(…, rows, labels) scores of (rows, width) features under (…, labels, width) vectors."""
    *leading, labels, width = label_vectors.shape
    flat = features @ label_vectors.reshape(-1, width).T
    return LOGIT_SCALE * flat.view(-1, *leading, labels).movedim(0, -2)


def embed(encoder: nn.Module, pooling: str, **inputs: Tensor) -> Tensor:
    """(rows, width) float32 pooled embeddings of unit length; virtual tokens are not pooled.

    Args:
        inputs: what the tokenizer makes of texts: `input_ids`, `attention_mask` and, of pairs,
            `token_type_ids` where the encoder is told which text a token is of.
    """
    hidden = encoder(**inputs).last_hidden_state
    hidden = hidden[:, columns_in_front(encoder) :].float()
    if pooling == "cls":
        pooled = hidden[:, 0]
    else:
        weights = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
    return functional.normalize(pooled, dim=-1)


def pooling_of(name: str) -> str:
    """The pooling of a sentence-transformers folder or hub name; mean where it says nothing.

    Raises:
        ConfigError: if it asks for another pooling than mean or cls.
    """
    from transformers.utils.hub import cached_file

    path = cached_file(
        name,
        "1_Pooling/config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return "mean"
    modes = json.loads(Path(path).read_text(encoding="utf-8"))
    asked = {
        key for key, value in modes.items() if key.startswith("pooling_mode_") and value is True
    }
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if not asked and modes.get("pooling_mode") in known.values():
        return modes["pooling_mode"]
    if len(asked) > 1 or not asked <= known.keys():
        raise ConfigError(
            f"model.name: {name} pools by {', '.join(sorted(asked))}; it must be mean or cls."
        )
    return known[asked.pop()] if asked else "mean"


def describe_labels(
    encoder: nn.Module, tokenizer: Any, pooling: str, descriptions: Sequence[str]
) -> Tensor:
    """(labels, width) float32: the embedding of each label's description."""
    device = next(encoder.parameters()).device
    vectors = []
    with torch.no_grad():
        for description in descriptions:
            inputs = tokenizer(description, return_tensors="pt").to(device)
            vectors.append(embed(encoder, pooling, **inputs)[0].cpu())
    return torch.stack(vectors)
