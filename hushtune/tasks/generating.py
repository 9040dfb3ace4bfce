"""Greedy completions of prompts, by transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

#: Prompts that are completed at a time.
_ROWS = 16


def complete(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    most: int,
    alone: bool = False,
) -> list[str]:
    """What a model writes after each prompt, taking the likeliest token each time.

    Args:
        model: a causal or an encoder-decoder model.
        tokenizer: the model's.
        prompts: their tokens.
        most: new tokens at most.
        alone: whether each prompt is completed on its own, so that what follows it does not depend
            on the others.
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
    # Prompts of about the same length together.
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    written: dict[int, str] = {}
    rows = 1 if alone else _ROWS
    for start in range(0, len(order), rows):
        places = order[start : start + rows]
        some = [prompts[place] for place in places]
        inputs = _padded(some, settings.pad_token_id or 0, left=not encoder_decoder)
        inputs = {name: tensor.to(network.device) for name, tensor in inputs.items()}
        with torch.inference_mode():
            tokens = network.generate(**inputs, generation_config=settings)
        new = tokens if encoder_decoder else tokens[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        written |= zip(places, (text.strip() for text in texts), strict=True)
    return [written[place] for place in range(len(prompts))]


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> dict[str, torch.Tensor]:
    """(rows, longest) tokens and mask, padded where a decoder does not go on writing."""
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        missing = width - len(row)
        ids.append([pad] * missing + [*row] if left else [*row] + [pad] * missing)
        mask.append([0] * missing + [1] * len(row) if left else [1] * len(row) + [0] * missing)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
