"""How a model with virtual tokens is read: prompt tuning and prefix tuning, as PEFT does them.

Prompt tuning (Lester et al., 2021) puts embeddings in front of those of a text, so that a model's
output has a column for each of them. A prefix (Li & Liang, 2021) is keys and values that the
attention of every layer finds in front of the text's own; the output keeps its columns. In an
encoder-decoder prompts stand before the encoder's text, and prefixes in the decoder alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hushtune.zo.losses import Inputs


def has_virtual_tokens(model: Any) -> bool:
    """Whether PEFT gives the model a prompt or a prefix."""
    return virtual_tokens(model) > 0


def has_prompt(model: nn.Module) -> bool:
    """Whether there are virtual tokens among the embeddings of the model, or of one inside it."""
    return any(map(_embedded, model.modules()))


def columns_in_front(model: Any) -> int:
    """Columns of scores, or of hidden states, that come before those of the text."""
    added = _embedded(model)
    return 0 if added and model.config.is_encoder_decoder else added


def encode(model: Any, inputs: Inputs) -> Tensor:
    """(rows, columns, width) output of an encoder-decoder's encoder, virtual tokens in front."""
    encoder, added = model.get_encoder(), _embedded(model)
    if not added:
        return encoder(**inputs).last_hidden_state
    texts, mask = model.word_embeddings(inputs["input_ids"]), inputs["attention_mask"]
    prompts = model.get_prompt(batch_size=len(texts)).to(texts.dtype)
    return encoder(
        inputs_embeds=torch.cat([prompts, texts], dim=1),
        attention_mask=torch.cat([mask.new_ones(len(mask), added), mask], dim=1),
    ).last_hidden_state


def _embedded(model: Any) -> int:
    """Virtual tokens among the embeddings."""
    return virtual_tokens(model) if getattr(model, "peft_type", None) == "PROMPT_TUNING" else 0


def virtual_tokens(model: Any) -> int:
    """Tokens of the prompt or prefix that PEFT gives the model; 0 without one."""
    return getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0
