"""Put a prompt and what follows it together, and score what follows; by kind of model."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hushtune.tasks.readouts.base import TokenSequence, common_start, filled, without_end
from hushtune.tasks.readouts.likelihood import NO_TARGET, TokenLikelihoods
from hushtune.zo.losses import Inputs


class Joining(ABC):
    """A model's way to read a prompt and to be scored on what follows.

    Args:
        tokenizer: the model's.
        max_tokens: longest sequence.
        max_targets: most tokens that are scored.
        whole: see `TokenLikelihoods`.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, max_targets: int, *, whole: bool) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.max_targets = max_targets
        self._whole = whole
        self._likelihoods: tuple[nn.Module, TokenLikelihoods] | None = None

    @abstractmethod
    def join(self, prompt: str, following: str, *, end: bool) -> tuple[list[int], list[int]]:
        """Tokens of the prompt, and those that are scored: what follows, and the end token."""

    @abstractmethod
    def prompt(self, prompt: str, *, room: int) -> list[int]:
        """Tokens of a prompt that something is to be generated after.

        Args:
            room: tokens that are to fit after it, where it is one sequence with them.
        """

    @abstractmethod
    def sequence(self, prompt: list[int], following: list[int], *, room: int) -> TokenSequence:
        """One row of a forward pass.

        Of a prompt that is too long the beginning is cut off.

        Args:
            room: tokens kept free for what follows, if that is more than there are.
        """

    @abstractmethod
    def extra_inputs(self, sequences: Sequence[TokenSequence], length: int) -> Inputs:
        """What the model is given beside the tokens."""

    @abstractmethod
    def scored(self, model: nn.Module, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(rows, targets) log-likelihoods of the targets, and the targets."""

    def in_one_pass(self) -> Joining:
        """A copy that scores all targets at once; see `TokenLikelihoods`."""
        twin = copy.copy(self)
        twin._whole, twin._likelihoods = True, None
        return twin

    def spaced(self, prompt: str, following: str) -> tuple[str, str]:
        """Both with the space between them, if any or none, in front of what follows.

        Most tokenizers attach a space to the word after it.
        """
        bare = prompt.rstrip(" ")
        following = prompt[len(bare) :] + following
        if bare and not bare[-1].isspace() and not following[:1].isspace():
            following = " " + following
        return bare, following

    def _likelihoods_of(self, model: nn.Module) -> TokenLikelihoods:
        if self._likelihoods is None or self._likelihoods[0] is not model:
            self._likelihoods = model, TokenLikelihoods(model, whole=self._whole)
        return self._likelihoods[1]

    def _ended(self, tokens: Sequence[int]) -> list[int]:
        """With the end token, where there is one, once."""
        last = self.tokenizer.eos_token_id
        end = [] if last is None else [last]
        return [*without_end(self.tokenizer, tokens), *end]


class CausalJoining(Joining):
    """One sequence; a position predicts the token after it."""

    def join(self, prompt: str, following: str, *, end: bool) -> tuple[list[int], list[int]]:
        prompt, following = self.spaced(prompt, following)
        before = without_end(self.tokenizer, self.tokenizer(prompt)["input_ids"])
        both = self.tokenizer(prompt + following)["input_ids"]
        both = self._ended(both) if end else [*without_end(self.tokenizer, both)]
        # The last token of a prompt may be another one with something after it.
        shared = max(0, min(common_start(before, both), len(both) - 1))
        return both[:shared], both[shared:]

    def prompt(self, prompt: str, *, room: int) -> list[int]:
        bare, _ = self.spaced(prompt, "")
        tokens = without_end(self.tokenizer, self.tokenizer(bare)["input_ids"])
        return self._cut([*tokens], self.max_tokens - room)

    def sequence(self, prompt: list[int], following: list[int], *, room: int) -> TokenSequence:
        kept = following[: self.max_targets]
        end = self._cut(prompt, self.max_tokens - max(room, len(kept)))
        ids = (*end, *kept)
        positions = range(len(end) - 1, len(ids) - 1)
        cut = len(end) < len(prompt) or len(kept) < len(following)
        return TokenSequence(ids, tuple(positions), tuple(kept), cut=cut)

    def extra_inputs(self, sequences: Sequence[TokenSequence], length: int) -> Inputs:
        width = min(self.max_targets, length)
        return {
            "positions": filled([each.positions for each in sequences], width, 0),
            "targets": filled([each.targets for each in sequences], width, NO_TARGET),
        }

    def scored(self, model: nn.Module, inputs: Inputs) -> tuple[Tensor, Tensor]:
        inputs = dict(inputs)
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        likelihoods = self._likelihoods_of(model)
        return likelihoods(inputs, positions, targets), targets

    def _cut(self, prompt: list[int], most: int) -> list[int]:
        """The last tokens of a prompt, after the one that every text begins with."""
        # Something must be there to predict the first token from.
        prompt = prompt or [self._first_token()]
        if len(prompt) <= most:
            return prompt
        first = prompt[:1] if prompt[0] in self.tokenizer.all_special_ids else []
        return first + prompt[len(prompt) - most + len(first) :]

    def _first_token(self) -> int:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        found = (getattr(self.tokenizer, name) for name in names)
        return next((token for token in found if token is not None), 0)


class EncoderDecoderJoining(Joining):
    """The prompt goes to the encoder; the decoder is scored on what follows and the end token."""

    def join(self, prompt: str, following: str, *, end: bool) -> tuple[list[int], list[int]]:
        del end  # a decoder's text always ends
        after = self.tokenizer(text_target=following.strip())["input_ids"]
        return self.tokenizer(prompt)["input_ids"], self._ended(after)

    def prompt(self, prompt: str, *, room: int) -> list[int]:
        del room
        return self._cut(self.tokenizer(prompt)["input_ids"])

    def sequence(self, prompt: list[int], following: list[int], *, room: int) -> TokenSequence:
        del room
        ids = self._cut(prompt)
        kept = following[: self.max_targets]
        cut = len(ids) < len(prompt) or len(kept) < len(following)
        return TokenSequence(tuple(ids), targets=tuple(kept), cut=cut)

    def extra_inputs(self, sequences: Sequence[TokenSequence], length: int) -> Inputs:
        del length
        targets = [each.targets for each in sequences]
        return {"targets": filled(targets, self.max_targets, NO_TARGET)}

    def scored(self, model: nn.Module, inputs: Inputs) -> tuple[Tensor, Tensor]:
        inputs = dict(inputs)
        targets = inputs.pop("targets")
        config: Any = model.config
        start = torch.full_like(targets[:, :1], config.decoder_start_token_id or 0)
        inputs["decoder_input_ids"] = torch.cat([start, targets[:, :-1].clamp(min=0)], dim=1)
        positions = torch.arange(targets.shape[1], device=targets.device).expand_as(targets)
        likelihoods = self._likelihoods_of(model)
        return likelihoods(inputs, positions, targets), targets

    def _cut(self, prompt: list[int]) -> list[int]:
        return prompt[max(0, len(prompt) - self.max_tokens) :] or [self.tokenizer.pad_token_id or 0]
