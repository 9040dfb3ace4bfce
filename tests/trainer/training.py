"""What the tests of `ZerothOrderTrainer` share: tiny models, rows of tokens, short runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

from hushtune import ZerothOrderArguments, ZerothOrderTrainer
from hushtune.privacy.boundary import Boundary

SHORT: dict[str, Any] = {"epsilon": 4.0, "directions": 4, "max_steps": 4, "batch": 12.0}
SHORT |= {"max_length": 40, "micro_batch_tokens": 256, "disable_tqdm": True}

#: Tokens that are no special ones in any tiny vocabulary.
TOKENS = range(8, 50)


def texts(count: int, seed: int = 0, most: int = 40) -> list[list[int]]:
    """Token ids, from three to `most` of them; half of the texts are short."""
    draw = random.Random(seed)
    lengths = [draw.randint(3, most if row % 2 else 8) for row in range(count)]
    return [draw.choices(TOKENS, k=length) for length in lengths]


def attended(ids: list[int]) -> dict[str, list[int]]:
    """A text as a tokenizer returns it."""
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def documents(count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Rows for a causal model."""
    return [
        {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": ids,
            "user_id": f"u{row % 20}",
        }
        for row, ids in enumerate(texts(count, seed))
    ]


def labelled(count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Rows for a classifier."""
    draw = random.Random(seed + 100)
    return [{**attended(ids), "label": draw.randrange(2)} for ids in texts(count, seed)]


def tokenizer(folder: str) -> Any:
    """That of a tiny model, which can pad."""
    made = transformers.AutoTokenizer.from_pretrained(folder)
    if made.pad_token is None:
        made.pad_token = made.eos_token
    return made


def causal(folder: str) -> Any:
    """A tiny causal model as it was saved."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def classifier(folder: str, **settings: Any) -> Any:
    """A tiny encoder with a new head, the same each time."""
    torch.manual_seed(3)
    auto = transformers.AutoModelForSequenceClassification
    return auto.from_pretrained(folder, **settings)


def with_lora(model: Any, **settings: Any) -> Any:
    """LoRA adapters, the same each time."""
    torch.manual_seed(4)
    return peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, **settings))


def trainer(model: Any, folder: Path, rows: Any, **options: Any) -> ZerothOrderTrainer:
    """A short run in `folder`; settings and the trainer's own arguments by name."""
    names = ZerothOrderArguments.__dataclass_fields__
    settings = SHORT | {name: value for name, value in options.items() if name in names}
    others = {name: value for name, value in options.items() if name not in names}
    arguments = ZerothOrderArguments(str(folder), **settings)
    return ZerothOrderTrainer(model, arguments, train_dataset=rows, **others)


def seq2seq_collator(folder: str) -> Callable[..., Any]:
    """Pads labels as it pads texts."""
    return transformers.DataCollatorForSeq2Seq(tokenizer(folder))


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether all parameters are the same bits."""
    return all(map(torch.equal, one.parameters(), other.parameters()))


def seen_inside(patch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Slopes and the unit of each row, of every step, as nobody outside sees them."""
    seen: list[tuple[Any, Any]] = []
    release = Boundary.release

    def watched(self: Boundary, scalars: Any, units: Any) -> Any:
        seen.append((scalars.copy(), units.copy()))
        return release(self, scalars, units)

    patch.setattr(Boundary, "release", watched)
    return seen
