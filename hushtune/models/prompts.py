"""Add virtual tokens to a model, and refuse the models that they do not work with.

A prompt starts as the embeddings of ordinary tokens of the vocabulary, a prefix as small normal
numbers; which ones is drawn from the public generator. (Keys and values of real text would be a
better start, as Li & Liang found, but come from forward passes, whose bits machines differ in.)
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from hushtune.config import ConfigError, ModelConfig
from hushtune.models.moving import (
    TASK_TYPES,
    base_network,
    cast_adapters,
    replace_network,
    whole_modules,
    with_peft,
)
from hushtune.tasks.dummy_text import dummy_texts
from hushtune.tasks.readouts import Example, ReadOut, example_length
from hushtune.zo.directions import Directions
from hushtune.zo.substitution import parameters_reached

if TYPE_CHECKING:
    from hushtune.models.load import LoadedModel

#: Errors by which PEFT and transformers say that a model cannot be given virtual tokens.
_UNFIT = (AttributeError, LookupError, RuntimeError, TypeError, ValueError, UserWarning)

#: How far padding may change scores, as a share of the largest, in 32 bits and in fewer.
_ROUNDING = {True: 1e-3, False: 1e-1}


def add_virtual_tokens(loaded: LoadedModel, model: ModelConfig, seed: int) -> None:
    """Put `model.virtual_tokens` in front of every text: `model.tune` says prompt or prefix.

    A classification head, and anything else that no checkpoint holds, moves and is saved as a
    whole, as with other adapters.

    Raises:
        ConfigError: if virtual tokens do not work with this model as it is read.
    """
    import peft

    network: Any = base_network(loaded)
    settings: dict[str, Any] = {
        # PEFT has no type for masks, and without a type leaves virtual tokens out.
        "task_type": TASK_TYPES[loaded.kind] or "FEATURE_EXTRACTION",
        "num_virtual_tokens": model.virtual_tokens,
        "modules_to_save": whole_modules(loaded),
    }
    if model.tune == "prompt":
        width = network.get_input_embeddings().weight.shape[1]
        # With two submodules PEFT would make a second prompt, for the decoder, and not read it.
        settings |= {"token_dim": width, "num_transformer_submodules": 1}
        config: Any = peft.PromptTuningConfig(**settings)
    else:
        settings |= _size_of_decoder(network.config)
        config = peft.PrefixTuningConfig(**settings)
    readout = loaded.readout
    example = readout.encode(readout.text_of(dummy_texts(1)[0]))
    try:
        adapted = with_peft(network, config)
        cast_adapters(adapted, model.lora)
        _draw(adapted, loaded.tokenizer, model, seed)
        replace_network(loaded, adapted)
        reason = _why_unfit(adapted, readout, example)
    except _UNFIT as error:
        reason = str(error).strip().split("\n")[0]
    if reason:
        raise ConfigError(
            f"model.tune: {model.tune} is not accepted for a {type(network).__name__} read at: "
            f"{loaded.kind} ({reason}); expected another way of tuning, such as lora."
        )


def _size_of_decoder(config: Any) -> dict[str, int]:
    """Layers, heads and width of a decoder beside an encoder, which PEFT would go by."""
    if not getattr(config, "is_encoder_decoder", False):
        return {}
    known: dict[str, int] = config.to_dict()
    heads = known.get("num_heads") or known["decoder_attention_heads"]
    return {
        "num_layers": known.get("num_decoder_layers") or known["decoder_layers"],
        "num_attention_heads": heads,
        "token_dim": heads * (known.get("d_kv") or known["d_model"] // heads),
    }


def _draw(adapted: Any, tokenizer: Any, model: ModelConfig, seed: int) -> None:
    """Draw what PEFT drew from a generator that nobody can repeat."""
    draw = Directions(seed, {}, "rademacher")
    name, weight = _virtual(adapted)
    if model.tune == "prefix":
        spread = getattr(adapted.config, "initializer_range", 0.02)
        start = draw.initial_normal(name, weight.shape, spread)
    else:
        ordinary = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
        tokens = torch.tensor(sorted(ordinary))
        shares = draw.initial_uniform(name, weight.shape[:1], 0.5).double() + 0.5
        chosen = tokens[(shares * len(tokens)).long()]
        with torch.no_grad():
            start = adapted.word_embeddings(chosen.to(weight.device))
    weight.data.copy_(start)


def _why_unfit(adapted: Any, readout: ReadOut, example: Example) -> str:
    """What is wrong with the scores of an example; nothing, if all is well."""
    columns = example_length(example)

    def scores(length: int) -> torch.Tensor:
        return readout.scores(readout.collate([example], length))

    with torch.inference_mode(), warnings.catch_warnings():
        # PEFT goes on without what tells a sentence encoder which of two texts a token is of.
        warnings.filterwarnings("error", message="Token type ids are not supported")
        padded, bare = scores(columns), scores(columns - 1)
    if not parameters_reached(dict([_virtual(adapted)]), lambda: scores(columns)):
        return "its scores do not depend on them"
    allowed = _ROUNDING[adapted.dtype == torch.float32] * bare.abs().max()
    # Some heads look for the end of a text among its tokens, which a prompt takes the place of.
    if (padded - bare).abs().max() > allowed:
        return "its scores would depend on the padding behind a text"
    return ""


def _virtual(adapted: Any) -> tuple[str, torch.nn.Parameter]:
    """The parameter that the virtual tokens are."""
    return next(pair for pair in adapted.named_parameters() if "prompt_encoder." in pair[0])
