"""What a row says, for each kind of task; a document, or a text to be classified, is a `str`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Two texts that are classified together, such as a premise and a hypothesis."""

    first: str
    second: str


@dataclass(frozen=True)
class Choices:
    """A text with the continuations to choose from."""

    text: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Completion:
    """A prompt with what should follow it.

    Attributes:
        prompt: what is given.
        completion: what is learned.
        accepted: all answers that an evaluation takes for right, `completion` among them.
    """

    prompt: str
    completion: str
    accepted: tuple[str, ...]


@dataclass(frozen=True)
class Message:
    """A turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Chat:
    """A conversation, whose assistant's turns are learned."""

    messages: tuple[Message, ...]


Text = str | Pair | Choices | Completion | Chat


def as_pair(text: str) -> Pair:
    """The two halves of a text, by words."""
    first, second = _halves(text)
    return Pair(first, second)


def as_completion(text: str) -> Completion:
    """A text whose second half, by words, follows the first."""
    first, second = _halves(text)
    return Completion(first, second, (second,))


def as_chat(text: str) -> Chat:
    """A text whose second half, by words, answers the first."""
    first, second = _halves(text)
    return Chat((Message("user", first), Message("assistant", second)))


def _halves(text: str) -> tuple[str, str]:
    words = text.split()
    half = len(words) // 2
    return " ".join(words[:half]), " ".join(words[half:])
