"""Losses of models with prompts and prefixes are those of the models' own logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor
from torch.nn import functional
from virtual_tokens import (
    COUNT,
    TEXTS,
    entropies,
    load,
    log_likelihoods,
    logits,
    losses_of,
    split,
    tokens,
)

from hushtune.models.encoder import LOGIT_SCALE
from hushtune.models.load import LoadedModel
from hushtune.tasks.texts import Chat, Choices, Completion, Message


def of_mask(loaded: LoadedModel, tune: str) -> tuple[list[Any], Tensor]:
    mask, words = loaded.tokenizer.mask_token_id, tiny_models.SINGLE
    scores = []
    for text in TEXTS:
        one, other = (tokens(loaded, f"{text} It was {word}.") for word in words)
        (place,) = [at for at, pair in enumerate(zip(one, other, strict=True)) if len({*pair}) == 2]
        ids = [*one[:place], mask, *one[place + 1 :]]
        scores.append(logits(loaded, ids, tune)[place][[one[place], other[place]]])
    return TEXTS, entropies(scores)


def of_words(words: tuple[str, str]) -> Callable[[LoadedModel, str], tuple[list[Any], Tensor]]:
    def by_hand(loaded: LoadedModel, tune: str) -> tuple[list[Any], Tensor]:
        return TEXTS, entropies(
            [
                torch.stack(
                    [
                        log_likelihoods(
                            loaded, *split(loaded, f"{text} It was", word, end=False), tune
                        ).sum()
                        for word in words
                    ]
                )
                for text in TEXTS
            ]
        )

    return by_hand


def of_head(loaded: LoadedModel, tune: str) -> tuple[list[Any], Tensor]:
    del tune
    scores = []
    for text in TEXTS:
        ids = torch.tensor([tokens(loaded, text)])
        with torch.inference_mode():
            scores.append(
                loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            )
    return TEXTS, entropies(scores)


def of_descriptions(loaded: LoadedModel, tune: str) -> tuple[list[Any], Tensor]:
    classifier: Any = loaded.model
    scores = []
    for text in TEXTS:
        ids = torch.tensor([tokens(loaded, text)])
        with torch.inference_mode():
            found = classifier.encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
            hidden = found.last_hidden_state[0]
            assert len(hidden) == ids.shape[1] + (COUNT if tune == "prompt" else 0)
            mean = hidden[-ids.shape[1] :].mean(dim=0)
            scores.append(
                LOGIT_SCALE * classifier.label_vectors @ functional.normalize(mean, dim=0)
            )
    return TEXTS, entropies(scores)


def of_completions(loaded: LoadedModel, tune: str) -> tuple[list[Any], Tensor]:
    rows = [Completion(text, f"so {word}", ()) for text, word in zip(TEXTS, "abc", strict=True)]
    found = [
        -log_likelihoods(loaded, *split(loaded, row.prompt, row.completion, end=True), tune).mean()
        for row in rows
    ]
    return rows, torch.stack(found)


def of_choices(loaded: LoadedModel, tune: str) -> tuple[list[Any], Tensor]:
    rows = [Choices(text, ("a great book", "food")) for text in TEXTS]
    scores = [
        torch.stack(
            [
                log_likelihoods(loaded, *split(loaded, row.text, each, end=False), tune).mean()
                for each in row.options
            ]
        )
        for row in rows
    ]
    return rows, entropies(scores)


def of_documents(loaded: LoadedModel, tune: str) -> tuple[list[Any], Tensor]:
    found = []
    for text in TEXTS:
        first, *rest = [*tokens(loaded, text), loaded.tokenizer.eos_token_id]
        found.append(-log_likelihoods(loaded, [first], rest, tune).mean())
    return TEXTS, torch.stack(found)


def of_chats(loaded: LoadedModel, tune: str) -> tuple[list[Any], Tensor]:
    rows, found = [], []
    for text in TEXTS:
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "so good"}]
        written = loaded.tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
        before = loaded.tokenizer.apply_chat_template(
            turns[:1], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        found.append(-log_likelihoods(loaded, before, written[len(before) :], tune).mean())
        rows.append(Chat(tuple(Message(**turn) for turn in turns)))
    return rows, torch.stack(found)


HEAD = {"readout": "head"}
BY_HAND = [
    *(("bert", tune, {}, of_mask) for tune in ("prompt", "prefix")),
    *(("roberta", tune, {}, of_mask) for tune in ("prompt", "prefix")),
    ("deberta", "prompt", {}, of_mask),
    *(("gpt2", tune, {}, of_words(tiny_models.SINGLE)) for tune in ("prompt", "prefix")),
    *(
        (family, tune, {"words": tiny_models.SEVERAL}, of_words(tiny_models.SEVERAL))
        for family in ("opt", "llama", "qwen3", "t5")
        for tune in ("prompt", "prefix")
    ),
    *((family, "prompt", HEAD, of_head) for family in ("bert", "roberta", "modernbert")),
    *((family, "prefix", HEAD, of_head) for family in ("bert", "roberta", "gpt2", "opt", "llama")),
    *(("encoder", tune, {}, of_descriptions) for tune in ("prompt", "prefix")),
    *(
        (family, tune, {"kind": "completion"}, of_completions)
        for family in ("gpt2", "gemma2", "t5")
        for tune in ("prompt", "prefix")
    ),
    *(
        (family, tune, {"kind": "multiple-choice"}, of_choices)
        for family in ("opt", "t5")
        for tune in ("prompt", "prefix")
    ),
    *(
        ("llama", tune, {"kind": "language-modelling"}, of_documents)
        for tune in ("prompt", "prefix")
    ),
    *(("qwen3", tune, {"kind": "chat"}, of_chats) for tune in ("prompt", "prefix")),
]


@pytest.mark.parametrize(("family", "tune", "settings", "by_hand"), BY_HAND)
def test_losses_are_those_of_the_models_own_logits(
    family, tune, settings, by_hand, tiny, tmp_path: Path
):
    chat = settings.get("kind") == "chat"
    folder = tiny_models.with_chat(tiny(family), tmp_path) if chat else tiny(family)
    loaded = load(folder, tune, **settings)
    texts, expected = by_hand(loaded, tune)
    assert expected.std() > 0
    torch.testing.assert_close(losses_of(loaded, texts), expected, rtol=1e-4, atol=1e-6)
