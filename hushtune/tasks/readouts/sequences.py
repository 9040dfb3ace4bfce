"""Read-outs of tasks that learn text: completions, options, conversations, documents.

A score is the mean log-likelihood of the tokens that are learned, so that long texts count as much
as short ones.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hushtune.config import ConfigError
from hushtune.tasks.generating import complete
from hushtune.tasks.readouts.base import Example, ReadOut, TokenSequence
from hushtune.tasks.readouts.classifying import cross_entropy
from hushtune.tasks.readouts.joining import Joining
from hushtune.tasks.readouts.likelihood import NO_TARGET
from hushtune.tasks.texts import (
    Chat,
    Choices,
    Completion,
    Message,
    as_chat,
    as_completion,
)
from hushtune.zo.losses import Inputs

#: Public options to choose from, of different lengths.
_OPTIONS = ("yes", "no", "it was not", "a very good one", "never", "the other", "so it is", "bad")


class SequenceReadOut(ReadOut):
    """What these read-outs share.

    Args:
        joining: how the model is given a prompt and scored on what follows it.
        options: scores per example.
    """

    def __init__(self, model: nn.Module, joining: Joining, *, options: int = 1) -> None:
        super().__init__(model, joining.tokenizer, options, joining.max_tokens + 1)
        self.sequences = options
        self._joining = joining

    def in_one_pass(self) -> SequenceReadOut:
        twin = copy.copy(self)
        twin._joining = self._joining.in_one_pass()
        return twin

    def scores(self, inputs: Inputs) -> Tensor:
        each, targets = self._joining.scored(self.model, inputs)
        counts = (targets != NO_TARGET).sum(dim=1).clamp(min=1)
        return (each.double().sum(dim=1) / counts).view(-1, self.labels)

    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        del labels
        return -scores[..., 0].double()

    def tokens_learned(self, example: Example) -> int:
        """Number of tokens whose likelihood a score is the mean of."""
        return sum(target != NO_TARGET for each in example for target in each.targets)

    def _extra_inputs(self, sequences: Sequence[TokenSequence], length: int) -> Inputs:
        return self._joining.extra_inputs(sequences, length)

    @abstractmethod
    def encode(self, text: Any) -> Example: ...


class CompletionReadOut(SequenceReadOut):
    """A prompt and its completion, the end token included."""

    def encode(self, text: Completion) -> Example:
        prompt, following = self._plain(text.prompt), self._plain(text.completion)
        return (self._joining.sequence(*self._joining.join(prompt, following, end=True), room=0),)

    def text_of(self, words: str) -> Completion:
        return as_completion(words)

    def complete(self, prompts: Sequence[str], *, alone: bool = False) -> list[str]:
        """What the model writes after each prompt, taking the likeliest token each time.

        Args:
            alone: whether each prompt is completed on its own.
        """
        tokens = [self._joining.prompt(self._plain(prompt)) for prompt in prompts]
        most = self._joining.max_targets
        return complete(self.model, self.tokenizer, tokens, most=most, alone=alone)


class ChoicesReadOut(SequenceReadOut):
    """Options that may follow a text; the loss is the cross-entropy of the right one."""

    def encode(self, text: Choices) -> Example:
        prompt = self._plain(text.text)
        joined = [
            self._joining.join(prompt, self._plain(option), end=False) for option in text.options
        ]
        # Room for the longest, so that all options see the same part of the text.
        room = min(max(len(following) for _, following in joined), self._joining.max_targets)
        return tuple(self._joining.sequence(*each, room=room) for each in joined)

    def text_of(self, words: str) -> Choices:
        count = len(_OPTIONS)
        options = [_OPTIONS[k % count] + " again" * (k // count) for k in range(self.labels)]
        return Choices(words, tuple(options))

    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(scores, labels)


class DocumentReadOut(SequenceReadOut):
    """All of a text, but for the first token, and the end token."""

    def encode(self, text: str) -> Example:
        prompt, following = self._joining.join("", self._plain(text), end=True)
        return (self._joining.sequence(prompt, following[: self.max_tokens - 1], room=0),)

    def text_of(self, words: str) -> str:
        return words


class ChatReadOut(SequenceReadOut):
    """The assistant's turns in the model's own chat format.

    Raises:
        ConfigError: if the tokenizer has no chat template, or one that writes the beginning of a
            conversation in another way when more follows.
    """

    def __init__(self, model: nn.Module, joining: Joining) -> None:
        super().__init__(model, joining)
        if not getattr(self.tokenizer, "chat_template", None):
            raise ConfigError(
                "task.kind: chat needs a tokenizer with a chat template; use a model that was made "
                "for conversations, or task.kind: completion."
            )
        first, answer, second = (Message(role, "a") for role in ("user", "assistant", "user"))
        try:
            self._spans((first, answer, second, answer))
        except _NotAPrefix:
            raise ConfigError(
                "task.kind: chat needs a chat template that writes a turn in the same way whether "
                "or not others follow; this tokenizer's does not."
            ) from None

    def encode(self, text: Chat) -> Example:
        messages = tuple(Message(each.role, self._plain(each.content)) for each in text.messages)
        ids, learned = self._spans(messages)
        # Of a conversation that is too long the beginning is cut off, as of a prompt.
        excess = max(0, len(ids) - self.max_tokens)
        kept = [place for place in learned if place - excess >= 1][: self._joining.max_targets]
        ids = ids[excess:]
        positions = tuple(place - excess - 1 for place in kept)
        return (TokenSequence(tuple(ids), positions, tuple(ids[at + 1] for at in positions)),)

    def text_of(self, words: str) -> Chat:
        return as_chat(words)

    def _spans(self, messages: tuple[Message, ...]) -> tuple[list[int], list[int]]:
        """The conversation's tokens, and the places of those in the assistant's turns."""
        turns = [{"role": each.role, "content": each.content} for each in messages]
        ids = self._written(turns)
        learned: list[int] = []
        for number, turn in enumerate(turns):
            if turn["role"] == "assistant":
                before = self._written(turns[:number], add_generation_prompt=True)
                until = self._written(turns[: number + 1])
                if ids[: len(before)] != before or ids[: len(until)] != until:
                    raise _NotAPrefix
                learned.extend(range(len(before), len(until)))
        return ids, learned

    def _written(self, turns: list[dict[str, str]], **options: bool) -> list[int]:
        written = self.tokenizer.apply_chat_template(
            turns, tokenize=True, return_dict=True, **options
        )
        return list(written["input_ids"])


class _NotAPrefix(ValueError):
    """A conversation is written in another way when more follows."""
