"""What every token at every position looks like to a model's first layer: public vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: Where the first layer's adapters of BERT are, and no others.
_FIRST = ".encoder.layer.0.attention.self."

_A, _B = ".lora_A.", ".lora_B."


@dataclass(frozen=True)
class View:
    """A linear layer that reads the first layer's inputs x, and what an update says of these.

    Attributes:
        rows: (k, w) float64, combinations of the vectors M·x of the text's positions.
        map: (w, width) M; None: the identity.
    """

    rows: Tensor
    map: Tensor | None

    def seen(self, inputs: Tensor) -> Tensor:
        """(n, w) of (n, width) inputs."""
        return inputs if self.map is None else inputs @ self.map.T.to(inputs.dtype)


def views(update: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> list[View]:
    """What an update of LoRA's factors says of the first layer's inputs.

    A layer W + s·BA with inputs x and backpropagated δ has, summed over positions,

        ∂L/∂A = s·Σ (Bᵀδ)·xᵀ      ∂L/∂B = s·Σ δ·(A·x)ᵀ

    so that rows of ∂L/∂A are combinations of inputs: r of them in each adapter, all together one
    view. While B is zero there are none, and rows of ∂L/∂B combine A·x: a view for each adapter, in
    which r positions fill the space.

    Args:
        update: tensors by name.
        parameters: the adapters by name, as they were when the update was computed.

    Raises:
        ValueError: if no adapter stands in the first attention of a BERT encoder.
    """
    names = [name for name in parameters if _FIRST in name and _A in name]
    if not names:
        raise ValueError("Expected LoRA in layer 0 of a BERT encoder's self-attention.")
    rows = torch.cat([update[name] for name in names])
    if rows.any():
        return [View(rows, None)]
    return [
        View(update[name.replace(_A, _B)], parameters[name].detach().double()) for name in names
    ]


class Atoms:
    """The first layer's input for each token at a position: LayerNorm(word + position + type).

    Args:
        encoder: BERT, with or without adapters.
    """

    def __init__(self, encoder: nn.Module) -> None:
        found = [
            module
            for name, module in encoder.named_modules()
            if name.split(".")[-1] == "embeddings" and hasattr(module, "word_embeddings")
        ]
        if len(found) != 1:
            raise ValueError("Expected an encoder with BERT's embeddings.")
        self._embeddings: Any = found[0]
        self.tokens: int = self._embeddings.word_embeddings.num_embeddings

    def at(self, position: int, tokens: Tensor | None = None) -> Tensor:
        """(tokens, width) float32, of the given tokens or of the whole vocabulary."""
        ids = (torch.arange(self.tokens) if tokens is None else tokens).unsqueeze(1)
        with torch.no_grad():
            return self._embeddings(input_ids=ids, position_ids=torch.full_like(ids, position))[
                :, 0
            ]
