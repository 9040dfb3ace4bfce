"""What a model writes after prompts, greedily or sampled, by transformers' own `generate`."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

from hushtune.config import require
from hushtune.models.virtual import has_virtual_tokens

#: Prompts that are continued at a time.
_ROWS = 16


@dataclass(frozen=True)
class Sampling:
    """How a next token is drawn; as it stands, from all that the model holds possible.

    Attributes:
        temperature: logits are divided by it; below 1 likely tokens become likelier.
        top_p: only the likeliest tokens that make up this probability (Holtzman et al., 2020).
        top_k: only so many of the likeliest tokens; 0: all.

    Raises:
        ConfigError: naming the first of them that cannot be used.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        positive = 0 < self.temperature < math.inf
        require(positive, "temperature", self.temperature, "positive and finite")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        require(self.top_k >= 0, "top_k", self.top_k, "0, for all tokens, or more")


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    Attributes:
        ids: the new tokens, up to and without the one that ends them.
        ended: whether there was one; else the model was stopped.
    """

    ids: list[int]
    ended: bool


@contextlib.contextmanager
def public_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """torch's own generator from a seed, for sampled tokens, and after as it was before."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def write(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    most: int,
    alone: bool = False,
    sampling: Sampling | None = None,
    ends: Collection[int] = (),
    after_batch: Callable[[int], None] = lambda _: None,
) -> list[Written]:
    """What a model writes after each prompt.

    Args:
        model: a causal or an encoder-decoder model.
        tokenizer: the model's.
        prompts: their tokens.
        most: new tokens at most.
        alone: whether each prompt is completed on its own, so that what follows it does not depend
            on the others.
        sampling: how tokens are drawn; none: the likeliest is taken each time.
        ends: tokens that end a text, beside the tokenizer's end token.
        after_batch: told of every so many prompts that are done.
    """
    from transformers import GenerationConfig

    network: Any = model
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    all_ends = [*ends] if end is None or end in ends else [end, *ends]
    encoder_decoder = bool(getattr(network.config, "is_encoder_decoder", False))
    settings = GenerationConfig(
        max_new_tokens=most,
        eos_token_id=all_ends or None,
        pad_token_id=end if pad is None else pad,
        decoder_start_token_id=getattr(network.config, "decoder_start_token_id", None),
        do_sample=sampling is not None,
        # What is not said here is taken from the model's own generation_config.
        num_beams=1,
        num_return_sequences=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        **({} if sampling is None else vars(sampling)),
    )
    # Padding on the left would come between a text and its virtual tokens.
    unpadded = has_virtual_tokens(model) and not encoder_decoder
    written: dict[int, Written] = {}
    for places in _places(prompts, rows=1 if alone else _ROWS, same_length=unpadded):
        some = [prompts[place] for place in places]
        inputs = _padded(some, settings.pad_token_id or 0, left=not encoder_decoder)
        inputs = {name: tensor.to(network.device) for name, tensor in inputs.items()}
        with torch.inference_mode(), warnings.catch_warnings():
            # PEFT leaves out positions where there is a prompt; those of unpadded rows follow.
            warnings.filterwarnings("ignore", message="Position ids are not supported")
            tokens = network.generate(**inputs, generation_config=settings)
        # A decoder begins with a token of its own.
        new = tokens[:, 1 if encoder_decoder else inputs["input_ids"].shape[1] :].tolist()
        written |= zip(places, (_until_end(ids, all_ends) for ids in new), strict=True)
        after_batch(len(places))
    return [written[place] for place in range(len(prompts))]


def _until_end(ids: list[int], ends: Collection[int]) -> Written:
    for place, token in enumerate(ids):
        if token in ends:
            return Written(ids[:place], ended=True)
    return Written(ids, ended=False)


def _places(
    prompts: Sequence[Sequence[int]], *, rows: int, same_length: bool
) -> Iterator[list[int]]:
    """Places of the prompts that are continued at a time: of about the same length, or of one."""
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    for _, alike in groupby(order, lambda place: len(prompts[place]) if same_length else 0):
        places = list(alike)
        for start in range(0, len(places), rows):
            yield places[start : start + rows]


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> dict[str, torch.Tensor]:
    """(rows, longest) tokens and mask, padded where a decoder does not go on writing."""
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        missing = width - len(row)
        ids.append([pad] * missing + [*row] if left else [*row] + [pad] * missing)
        mask.append([0] * missing + [1] * len(row) if left else [1] * len(row) + [0] * missing)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
