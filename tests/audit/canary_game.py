"""What the tests of audits share: an encoder whose texts differ, short runs, a stand-in mechanism.

The tiny encoder of the other tests gives nearly the same embedding to every text, so that canaries
would hide each other. This one is little more than a bag of words.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hushtune import session as sessions
from hushtune.audit import both
from hushtune.config import (
    Config,
    DataConfig,
    MethodConfig,
    ModelConfig,
    PrivacyConfig,
    TaskConfig,
)
from hushtune.privacy import PrivacyPlan
from hushtune.privacy.audit import Finding, MechanismAudit
from hushtune.session import Session

POPULATION = 1000
LABELS = {"negative": "it was terrible", "positive": "it was great"}


def save_bag_encoder(folder: Path) -> str:
    """A one-layer BERT without positions, and a vocabulary of 256 made-up words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    syllables = ["ba", "de", "ki", "lo", "mu", "ne", "po", "ra"]
    words = [a + b + c for a in syllables for b in ("", "l", "n", "r") for c in syllables]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, "it", "was", "terrible", "great", *words]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, special, strict=True))
    ).save_pretrained(folder)
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=256,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    )
    with torch.no_grad():
        model.embeddings.position_embeddings.weight.zero_()
        model.embeddings.token_type_embeddings.weight.zero_()
    model.save_pretrained(folder)
    return str(folder)


def make_config(
    encoder: str,
    data: str,
    output: Path,
    *,
    epsilon: float = 2.0,
    adjacency: str = "add-or-remove-one",
    unit: str | None = None,
    **method: Any,
) -> Config:
    """A short private run whose data need not exist."""
    settings = {"directions": 64, "steps": 60, "batch": 100.0} | method
    return Config(
        model=ModelConfig(name=encoder),
        data=DataConfig(train=data, max_length=32, unit=unit),
        task=TaskConfig(labels=LABELS),
        method=MethodConfig(**settings),
        privacy=PrivacyConfig(epsilon=epsilon, adjacency=adjacency),  # type: ignore[arg-type]
        output=str(output),
    )


def new_session(encoder: str, **settings: Any) -> Session:
    """The session of a run on `POPULATION` people, none of whose texts there are."""
    return sessions.begin(
        make_config(encoder, "nowhere.jsonl", Path("nowhere"), **settings), units=POPULATION
    )


def without_privacy(config: Config) -> Config:
    """The same with method mezo."""
    return dataclasses.replace(
        config,
        method=dataclasses.replace(config.method, name="mezo"),
        privacy=PrivacyConfig(mechanism="none"),
    )


def stand_in(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Replace the mechanism's audit, which takes its time, by one with a given result."""

    def audit_mechanism(plan: PrivacyPlan, *, confidence: float) -> MechanismAudit:
        result = {
            "epsilon_lower_bound": 0.5,
            "epsilon_claimed": plan.epsilon(),
            "confidence": confidence,
            "released_coordinates": 1_000_000,
            "findings": (Finding("noise", True, "as it should be"),),
        }
        return MechanismAudit(**result | changes)

    monkeypatch.setattr(both, "audit_mechanism", audit_mechanism)
