"""What a model needs, and how large its micro-batches should be, from its configuration alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

#: Bytes of a process that has imported every library and compiled every kernel, without a model.
_LIBRARIES = 650 << 20

#: Tokens that a micro-batch has at least: with fewer, smaller ones save hardly any memory.
_FEWEST_TOKENS = 128


class Costs(NamedTuple):
    """What a forward pass costs beside its tokens, and from where on larger ones gain nothing.

    Attributes:
        overhead: time of a forward pass of no tokens, in units of the time of one more token.
        most_tokens: tokens of a pass beyond which the overhead is a few percent at most.
    """

    overhead: int
    most_tokens: int


class Needs(NamedTuple):
    """Bytes that a model needs.

    Attributes:
        weights: all parameters.
        scratch: the parameters of the largest single operation, if they move. Embeddings are not
            counted: of those only the rows that are read are copied.
        a_token: activations of one token of a micro-batch.
    """

    weights: int
    scratch: int
    a_token: int

    def peak(self, tokens: int, *, resting: int = _LIBRARIES) -> int:
        """Bytes of a process while it runs a micro-batch of so many tokens."""
        return resting + self.weights + self.scratch + tokens * self.a_token


def costs(device: torch.device, *, all_move: bool) -> Costs:
    """What passes cost on a device, with all parameters moving or only few.

    With all moving, every pass writes each parameter again. Read off times of passes of 128 to 4096
    tokens on one core (MiniLM and OPT-125M, float32, texts of 32 tokens). A GPU wants larger
    passes; its numbers are guesses.
    """
    if device.type == "cuda":
        return Costs(1000, 16384) if all_move else Costs(500, 8192)
    return Costs(150, 4096) if all_move else Costs(30, 1024)


def needs(name: str, dtype: str, *, all_move: bool, max_length: int) -> Needs:
    """What a model in a folder or on the hub needs, from its configuration; no weights are read.

    Heads and adapters are left out. Weights that the checkpoint holds in another format are held
    twice for a moment while they load, which is left out as well.
    """
    from hushtune.models.load import hub_call

    config = hub_call(name, "AutoConfig")
    import transformers

    with torch.device("meta"):
        network = transformers.AutoModel.from_config(config)
    size = 4 if dtype in ("auto", "float32") else 2
    embeddings = (each for each in network.modules() if isinstance(each, torch.nn.Embedding))
    looked_up = {id(each.weight) for each in embeddings}
    sizes = [size * p.numel() for p in network.parameters()]
    dense = [size * p.numel() for p in network.parameters() if id(p) not in looked_up]
    scratch = max(dense, default=0) if all_move else 0
    return Needs(sum(sizes), scratch, bytes_a_token(config, size, max_length))


def bytes_a_token(config: Any, size: int, max_length: int, *, keeps_keys: bool = False) -> int:
    """Bytes of activations, about, that a forward pass without gradients holds for one token.

    They are those of the widest moment: a few copies of the hidden state, the inner layer before
    and after its activation function, and one row of attention scores for every head.

    Args:
        keeps_keys: whether keys and values of all layers stay until the pass ends, as they do in
            a cache that begins with a prefix.
    """
    text = config.get_text_config()
    hidden = getattr(text, "hidden_size", 1024)
    inner = max(
        getattr(text, key, None) or 0 for key in ("intermediate_size", "ffn_dim", "d_ff", "n_inner")
    )
    heads = getattr(text, "num_attention_heads", 16)
    kept = 0
    if keeps_keys:
        sharing = heads // (getattr(text, "num_key_value_heads", None) or heads)
        kept = 2 * getattr(text, "num_hidden_layers", 24) * hidden // sharing
    return size * (6 * hidden + 2 * (inner or 4 * hidden) + heads * max_length + kept)


def fitting_tokens(a_token: int, wanted: int, limit: int) -> int:
    """The largest power of two up to `wanted` whose activations fit into `limit` bytes.

    It is 128 at least: rather too slow a memory than a model that cannot be tried at all.
    """
    tokens = 1 << (wanted.bit_length() - 1)
    while tokens > _FEWEST_TOKENS and tokens * a_token > limit:
        tokens //= 2
    return tokens
