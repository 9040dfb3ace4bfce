"""Read-outs of tasks that learn a text: it is scored, and a tuned model can write another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hushtune.config import require
from hushtune.tasks.generating import Sampling, Written, write
from hushtune.tasks.readouts.base import Example
from hushtune.tasks.readouts.sequences import SequenceReadOut
from hushtune.tasks.texts import Completion, as_completion


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prompt.

    Attributes:
        text: without special tokens; of a document, with the space between the two.
        ended: whether the model ended it; else it was stopped.
    """

    text: str
    ended: bool


class WritingReadOut(SequenceReadOut):
    """Learns what follows, and so can write it."""

    #: Tokens that end a text, beside the tokenizer's end token.
    ends: frozenset[int] = frozenset()

    @property
    def room(self) -> int:
        """Tokens that a long prompt leaves free for what follows."""
        return self.max_tokens // 2

    def most_after(self, prompts: Sequence[Any]) -> int:
        """How many new tokens there is room for after each of these prompts."""
        longest = max(len(self.begin(prompt, room=self.room)) for prompt in prompts)
        return self.max_tokens - longest

    def begin(self, prompt: Any, *, room: int) -> list[int]:
        """Tokens that the model goes on from.

        Of a prompt that is too long the beginning is cut off, as when it is learned.

        Args:
            room: tokens that are to fit after them.
        """
        return self._joining.prompt(self._plain(prompt), room=room)

    def write(
        self,
        prompts: Sequence[Any],
        *,
        most: int,
        alone: bool = False,
        sampling: Sampling | None = None,
        after_batch: Callable[[int], None] = lambda _: None,
    ) -> list[Continuation]:
        """What the model writes after each prompt; see `hushtune.tasks.generating`.

        Raises:
            ConfigError: if no prompt could be longer than nothing beside so many new tokens.
        """
        longest = self.max_tokens - 1
        accepted = f"from 1 to {longest}, as many as data.max_length has room for"
        require(1 <= most <= longest, "max_new_tokens", most, accepted)
        begun = [self.begin(prompt, room=most) for prompt in prompts]
        written = write(
            self.model,
            self.tokenizer,
            begun,
            most=most,
            alone=alone,
            sampling=sampling,
            ends=self.ends,
            after_batch=after_batch,
        )
        return [self._read(*each) for each in zip(begun, written, strict=True)]

    def _read(self, begun: Sequence[int], written: Written) -> Continuation:
        """The text of new tokens."""
        del begun
        return Continuation(self._decoded(written.ids).strip(), written.ended)

    def _decoded(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


class CompletionReadOut(WritingReadOut):
    """A prompt and its completion, the end token included."""

    @property
    def room(self) -> int:
        return self._joining.max_targets

    def most_after(self, prompts: Sequence[Any]) -> int:
        del prompts
        return self.room

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
        return [each.text for each in self.write(prompts, most=self.room, alone=alone)]


class DocumentReadOut(WritingReadOut):
    """All of a text, but for the first token, and the end token."""

    def encode(self, text: str) -> Example:
        prompt, following = self._joining.join("", self._plain(text), end=True)
        kept = following[: self.max_tokens - 1]
        sequence = self._joining.sequence(prompt, kept, room=0)
        return (replace(sequence, cut=sequence.cut or len(kept) < len(following)),)

    def text_of(self, words: str) -> str:
        return words

    def _read(self, begun: Sequence[int], written: Written) -> Continuation:
        # With the space in front, if any: some tokenizers lose it where tokens stand alone.
        before, whole = self._decoded(begun), self._decoded([*begun, *written.ids])
        if not whole.startswith(before):
            return Continuation(f" {self._decoded(written.ids)}", written.ended)
        return Continuation(whole.removeprefix(before), written.ended)
