"""The read-out of conversations: the assistant's turns, in the model's own chat format."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from hushtune.config import ConfigError
from hushtune.tasks.generating import Written
from hushtune.tasks.readouts.base import Example, TokenSequence
from hushtune.tasks.readouts.joining import Joining
from hushtune.tasks.readouts.writing import Continuation, WritingReadOut
from hushtune.tasks.texts import Chat, Message, as_chat

#: Stands for what an assistant says, to see what the chat template puts around it.
_SAID = "aaa"


class ChatReadOut(WritingReadOut):
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
        self._learn_surroundings()

    def encode(self, text: Chat) -> Example:
        ids, learned = self._spans(text.messages)
        # Of a conversation that is too long the beginning is cut off, as of a prompt.
        excess = max(0, len(ids) - self.max_tokens)
        kept = [place for place in learned if place - excess >= 1][: self._joining.max_targets]
        cut = excess > 0 or len(kept) < len(learned)
        ids = ids[excess:]
        positions = tuple(place - excess - 1 for place in kept)
        targets = tuple(ids[at + 1] for at in positions)
        return (TokenSequence(tuple(ids), positions, targets, cut=cut),)

    def text_of(self, words: str) -> Chat:
        return as_chat(words)

    def begin(self, prompt: Chat, *, room: int) -> list[int]:
        turns = self._turns(prompt.messages)
        return self._written(turns, add_generation_prompt=True)[-(self.max_tokens - room) :]

    def _read(self, begun: Sequence[int], written: Written) -> Continuation:
        text = super()._read(begun, written).text
        said, after, _ = text.partition(self._after) if self._after else (text, "", "")
        return Continuation(said.removeprefix(self._before).strip(), written.ended or bool(after))

    def _learn_surroundings(self) -> None:
        """See what the chat template writes around what an assistant says.

        Before it, some have a place for thoughts. After it, most have a special token: that one
        ends a text. Others have words, at which what was written is cut.
        """
        turns = self._turns((Message("user", "a"), Message("assistant", _SAID)))
        begun, whole = (
            self.tokenizer.apply_chat_template(some, tokenize=False, add_generation_prompt=asked)
            for some, asked in ((turns[:1], True), (turns, False))
        )
        before, _, after = whole.removeprefix(begun).partition(_SAID)
        self._before, self._after = self._plain(before).strip(), ""
        special = self._special.match(after.strip()) if self._special else None
        if special:
            self.ends = frozenset([self.tokenizer.convert_tokens_to_ids(special.group())])
        else:
            self._after = self._plain(after).strip()

    def _turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Messages as chat templates want them, without special tokens."""
        return [{"role": each.role, "content": self._plain(each.content)} for each in messages]

    def _spans(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """The conversation's tokens, and the places of those in the assistant's turns."""
        turns = self._turns(messages)
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
