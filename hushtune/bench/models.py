"""Randomly initialised models of published shapes, with a tokenizer and text to go with them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hushtune.models.encoder import EncoderClassifier
from hushtune.models.load import LoadedModel
from hushtune.tasks.data import LabelledText
from hushtune.tasks.readouts import CausalReadOut, DescriptionsReadOut

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

#: Bytes of a weight in NF4: four bits, and a float32 scale for every 64 weights.
_NF4_BYTES = 0.5 + 4 / 64

_LABELS = ("w10", "w11")


@dataclass(frozen=True)
class Size:
    """The shape of a model.

    Attributes:
        kind: "decoder" (OPT) or "encoder" (BERT).
        width: of the residual stream; the feed-forward layers are four times as wide.
        layers: transformer layers.
        heads: attention heads.
        vocabulary: tokens.
        positions: longest sequence.
    """

    kind: str
    width: int
    layers: int
    heads: int
    vocabulary: int
    positions: int = 2048

    @property
    def inner(self) -> int:
        """Parameters of the layers' matrices: what a token is multiplied with."""
        return 12 * self.layers * self.width**2

    @property
    def parameters(self) -> int:
        """All parameters but biases and norms, which are under one in a hundred."""
        return self.inner + (self.vocabulary + self.positions) * self.width

    def bytes(self, dtype: str) -> int:
        """Bytes of the weights; embeddings stay in 16 bits beside NF4."""
        if dtype == "nf4":
            return round(self.inner * _NF4_BYTES + 2 * (self.parameters - self.inner))
        return self.parameters * DTYPES[dtype].itemsize

    def largest_operation(self, dtype: str) -> int:
        """Bytes of the parameters of the largest single operation."""
        largest = max(self.vocabulary * self.width, 4 * self.width**2)
        return largest * DTYPES[dtype].itemsize


#: By name. 22M has the shape of MiniLM-L6, those from 125M those of OPT (Zhang et al., 2022).
SIZES = {
    "tiny": Size("decoder", 32, 2, 2, 400, positions=256),
    "5M": Size("decoder", 256, 4, 4, 8_192, positions=512),
    "22M": Size("encoder", 384, 6, 12, 30_522, positions=512),
    "125M": Size("decoder", 768, 12, 12, 50_272),
    "1.3B": Size("decoder", 2048, 24, 32, 50_272),
    "6.7B": Size("decoder", 4096, 32, 32, 50_272),
    "13B": Size("decoder", 5120, 40, 40, 50_272),
    "66B": Size("decoder", 9216, 64, 72, 50_272),
    "175B": Size("decoder", 12288, 96, 96, 50_272),
}


def build(size: Size, dtype: str, device: str, *, length: int) -> LoadedModel:
    """A model of this size with random weights, ready to be read out.

    Args:
        dtype: "float32", "bfloat16", or "nf4": the layers' matrices in NF4 (Dettmers et al.,
            2023), the rest in bfloat16.
        device: where it is made; no other memory is used for it.
        length: tokens of a text, with one column of padding.
    """
    tokenizer = _tokenizer(size.vocabulary)
    torch.manual_seed(0)
    if dtype == "nf4":
        with _made(torch.bfloat16, "meta"):
            network = _network(size)
        _materialise(network, device)
    else:
        with _made(DTYPES[dtype], device):
            network = _network(size)
    network.eval()
    if size.kind == "encoder":
        vectors = torch.nn.functional.normalize(torch.randn(len(_LABELS), size.width), dim=-1)
        classifier = EncoderClassifier(network, "mean", vectors).to(device)
        encoder = DescriptionsReadOut(classifier, tokenizer, _LABELS, "", length)
        return LoadedModel(encoder, "descriptions", tokenizer, "", ())
    decoder = CausalReadOut(network, tokenizer, _LABELS, "{text} {label}", length)
    return LoadedModel(decoder, "continuation", tokenizer, "", ())


def random_text(size: Size, *, rows: int, tokens: int) -> LabelledText:
    """Rows of so many tokens each, frequent and rare ones as in any language (Zipf's law)."""
    draw = np.random.default_rng(0)
    numbers = (size.vocabulary ** draw.random((rows, tokens))).astype(int) - 1
    texts = [" ".join(f"w{number}" for number in row) for row in numbers]
    return LabelledText(texts, np.arange(rows) % len(_LABELS), np.arange(rows))


def _tokenizer(vocabulary: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(vocabulary - 2)}
    words |= {"<pad>": vocabulary - 2, "<unk>": vocabulary - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def _network(size: Size) -> nn.Module:
    import transformers

    shared: dict[str, Any] = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": size.positions,
    }
    if size.kind == "encoder":
        encoder = transformers.BertConfig(**shared, intermediate_size=4 * size.width)
        return transformers.BertModel(encoder, add_pooling_layer=False)
    decoder = transformers.OPTConfig(
        **shared, ffn_dim=4 * size.width, word_embed_proj_dim=size.width
    )
    return transformers.OPTForCausalLM(decoder)


@contextlib.contextmanager
def _made(dtype: torch.dtype, device: str) -> Iterator[None]:
    """Within this block modules are made in this format and there."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def _materialise(network: Any, device: str) -> None:
    """Give a model without memory random weights, one at a time; its layers' matrices in NF4."""
    layers: Any = importlib.import_module("bitsandbytes").nn

    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and name != "lm_head":
                exchanged = layers.Linear4bit(
                    child.in_features,
                    child.out_features,
                    compute_dtype=torch.bfloat16,
                    quant_type="nf4",
                    device="meta",
                )
                weight = _random(child.weight, device)
                exchanged.weight = layers.Params4bit(
                    weight, requires_grad=False, quant_type="nf4"
                ).to(device)
                setattr(module, name, exchanged)
    made: dict[int, nn.Parameter] = {}  # tied parameters stay tied
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(_random(parameter, device))
                setattr(module, name, made[id(parameter)])
    network.is_loaded_in_4bit = True  # what PEFT asks before it puts adapters beside such layers


def _random(like: torch.Tensor, device: str) -> torch.Tensor:
    return torch.empty(like.shape, dtype=torch.bfloat16, device=device).normal_(std=0.02)
