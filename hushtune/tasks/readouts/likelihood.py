"""Log-likelihoods of given tokens, the vocabulary-sized product in blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hushtune.models.virtual import columns_in_front
from hushtune.tasks.readouts.base import logits_at
from hushtune.zo.losses import Inputs

#: Stands for no token where a sequence has fewer targets than others.
NO_TARGET = -1

#: Rows of logits that are there at a time, about. The number follows from the micro-batch's shape.
_BLOCK_ROWS = 256


def log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """(rows,) summed log-likelihoods of (rows, positions) targets; NO_TARGET adds nothing."""
    return token_log_likelihoods(logits, targets).sum(dim=1)


class TokenLikelihoods:
    """Log-likelihoods of targets at positions of a causal model's, or a decoder's, output.

    Logits of a whole micro-batch would take more memory than all else together. Where a model
    returns what its output embedding returns, as most do, it is called with no rows, and the
    embedding then with a block of positions at a time. Whether a model is such a one is tried once.

    Args:
        model: returns an output with `logits`.
        whole: the output embedding is called once and no more, as streamed weights want it.
    """

    def __init__(self, model: nn.Module, *, whole: bool = False) -> None:
        self._model = model
        self._in_blocks = False if whole else None

    def __call__(self, inputs: Inputs, positions: Tensor, targets: Tensor) -> Tensor:
        """(rows, positions) float32 log-likelihoods; 0 at NO_TARGET."""
        if self._in_blocks is None:
            one = {name: tensor[:1] for name, tensor in inputs.items()}
            self._in_blocks = self._same_apart(one, positions[:1, :1])
        if not self._in_blocks:
            logits = self._logits(inputs, positions)
            return token_log_likelihoods(logits, targets)
        hidden = self._hidden(inputs, positions)
        # All rows are in every block: where they stand once for each of several directions, what
        # the output embedding sees must say which.
        width = max(1, _BLOCK_ROWS // len(hidden))
        picked = [
            token_log_likelihoods(self._embedding(some), wanted)
            for some, wanted in zip(
                hidden.split(width, dim=1), targets.split(width, dim=1), strict=True
            )
        ]
        return torch.cat(picked, dim=1)

    @property
    def _embedding(self) -> Any:
        model: Any = self._model
        return model.get_output_embeddings()

    def _same_apart(self, inputs: Inputs, positions: Tensor) -> bool:
        """Whether logits are what the output embedding returns; some models scale or cap them."""
        if self._embedding is None:
            return False
        hidden = self._hidden(inputs, positions)
        if hidden is None:
            return False
        return torch.equal(self._embedding(hidden), self._logits(inputs, positions))

    def _logits(self, inputs: Inputs, positions: Tensor) -> Tensor:
        return logits_at(self._model, {**inputs, "use_cache": False}, positions)

    def _hidden(self, inputs: Inputs, positions: Tensor) -> Any:
        """(rows, positions, width) that goes into the output embedding; None if nothing does."""
        columns = positions + columns_in_front(self._model)
        found: list[Tensor] = []

        def take(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden, *rest = arguments
            index = columns.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
            found.append(hidden.gather(1, index))
            return (hidden[:, :0], *rest)

        hook = self._embedding.register_forward_pre_hook(take)
        try:
            self._model(**inputs, use_cache=False)
        finally:
            hook.remove()
        return found[0] if found else None


def token_log_likelihoods(logits: Tensor, targets: Tensor) -> Tensor:
    """(rows, positions) float32 log-likelihoods; 0 where a target is below 0, as NO_TARGET is."""
    each = logits.float().log_softmax(dim=-1).gather(2, targets.clamp(min=0).unsqueeze(-1))
    return torch.where(targets >= 0, each.squeeze(-1), 0.0)
