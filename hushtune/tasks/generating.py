"""Greedy completions of prompts, by transformers' own `generate`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import nn

from hushtune.models.virtual import has_virtual_tokens

#: Prompts that are completed at a time.
_ROWS = 16


def complete(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Sequence[int]], *, most: int
) -> list[str]:
    """What a model writes after each prompt, taking the likeliest token each time.

    Args:
        model: a causal or an encoder-decoder model.
        tokenizer: the model's.
        prompts: their tokens.
        most: new tokens at most.
    """
    from transformers import GenerationConfig

    network: Any = model
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    encoder_decoder = bool(getattr(network.config, "is_encoder_decoder", False))
    settings = GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end if pad is None else pad,
        decoder_start_token_id=getattr(network.config, "decoder_start_token_id", None),
    )
    # Padding on the left would come between a text and its virtual tokens.
    unpadded = has_virtual_tokens(model) and not encoder_decoder
    written: dict[int, str] = {}
    for places in _places(prompts, same_length=unpadded):
        some = [prompts[place] for place in places]
        inputs = _padded(some, settings.pad_token_id or 0, left=not encoder_decoder)
        inputs = {name: tensor.to(network.device) for name, tensor in inputs.items()}
        with torch.inference_mode(), warnings.catch_warnings():
            # PEFT leaves out positions where there is a prompt; those of unpadded rows follow.
            warnings.filterwarnings("ignore", message="Position ids are not supported")
            tokens = network.generate(**inputs, generation_config=settings)
        new = tokens if encoder_decoder else tokens[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        written |= zip(places, (text.strip() for text in texts), strict=True)
    return [written[place] for place in range(len(prompts))]


def _places(prompts: Sequence[Sequence[int]], *, same_length: bool) -> Iterator[list[int]]:
    """Where the prompts stand that are completed at a time: of about the same length, or of one."""
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    for _, alike in groupby(order, lambda place: len(prompts[place]) if same_length else 0):
        places = list(alike)
        for start in range(0, len(places), _ROWS):
            yield places[start : start + _ROWS]


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> dict[str, torch.Tensor]:
    """(rows, longest) tokens and mask, padded where a decoder does not go on writing."""
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        missing = width - len(row)
        ids.append([pad] * missing + [*row] if left else [*row] + [pad] * missing)
        mask.append([0] * missing + [1] * len(row) if left else [1] * len(row) + [0] * missing)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
