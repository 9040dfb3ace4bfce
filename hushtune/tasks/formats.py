"""How each kind of task reads a row: which columns, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hushtune.config import DataConfig, TaskConfig
from hushtune.tasks.cells import cell_of, name_of, text_of
from hushtune.tasks.files import DataError
from hushtune.tasks.readouts.template import fill_columns
from hushtune.tasks.texts import Chat, Choices, Completion, Message, Pair, Text

Row = Mapping[str, Any]

#: What a row says, and its label: 0 where it has none. Its arguments are the row's place, for
#: messages, and the row.
RowReader = Callable[[str, Row], tuple[Text, int]]

#: Who can speak in a conversation.
_ROLES = ("system", "user", "assistant")


def row_reader(task: TaskConfig, data: DataConfig) -> RowReader:
    """What reads the rows of a task."""
    if task.kind == "multiple-choice":
        return lambda place, row: _choices(place, row, task, data)
    if task.kind == "completion":
        return lambda place, row: (_completion(place, row, task, data), 0)
    if task.kind == "chat":
        return lambda place, row: (_chat(place, row, data.messages), 0)
    if task.kind == "language-modelling":
        return lambda place, row: (text_of(place, row, data.text), 0)
    position = {name: index for index, name in enumerate(task.labels)}
    return lambda place, row: _classified(place, row, data, position)


def _classified(
    place: str, row: Row, data: DataConfig, position: Mapping[str, int]
) -> tuple[Text, int]:
    text: Text = text_of(place, row, data.text)
    if data.second is not None:
        text = Pair(text, text_of(place, row, data.second))
    label = name_of(place, row, data.label, needed_for="label")
    if label not in position:
        raise DataError(f"{place}: unknown label {label!r}; task.labels has {', '.join(position)}.")
    return text, position[label]


def _choices(place: str, row: Row, task: TaskConfig, data: DataConfig) -> tuple[Text, int]:
    text = prompt_of(place, row, task.template, data.text)
    if len(data.choices) == 1:
        column = data.choices[0]
        values = cell_of(place, row, column)
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise DataError(f"{place}: {column} is not a list of texts.")
        options = [text_of(place, {column: value}, column) for value in values]
    else:
        options = [text_of(place, row, column) for column in data.choices]
    if len(options) != task.options:
        raise DataError(
            f"{place}: {len(options)} options to choose from; task.options is {task.options}."
        )
    label = name_of(place, row, data.label, needed_for="label")
    if label in options:
        return Choices(text, tuple(options)), list(options).index(label)
    if not label.isdecimal() or int(label) >= len(options):
        raise DataError(
            f"{place}: {data.label} is {label!r}; expected one of the options, or a number from 0 "
            f"to {len(options) - 1}."
        )
    return Choices(text, tuple(options)), int(label)


def _completion(place: str, row: Row, task: TaskConfig, data: DataConfig) -> Completion:
    prompt = prompt_of(place, row, task.template, data.prompt)
    value = cell_of(place, row, data.completion)
    answers = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
    for answer in answers:
        text_of(place, {data.completion: answer}, data.completion)
    if not answers:
        raise DataError(f"{place}: {data.completion} is an empty list; expected a text or several.")
    return Completion(prompt, answers[0], tuple(answers))


def prompt_of(place: str, row: Row, template: str, column: str) -> str:
    """The template with the row's columns filled in, or the column where there is none."""
    if not template:
        return text_of(place, row, column)
    return fill_columns(template, lambda name: text_of(place, row, name))


def _chat(place: str, row: Row, column: str) -> Chat:
    messages = messages_of(place, row, column)
    if not any(message.role == "assistant" for message in messages):
        raise DataError(f"{place}: {column} has no turn of the assistant, and that is learned.")
    return Chat(messages)


def messages_of(place: str, row: Row, column: str) -> tuple[Message, ...]:
    """A conversation's turns."""
    turns = cell_of(place, row, column)
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise DataError(f"{place}: {column} is not a list of messages with role and content.")
    messages = []
    for number, turn in enumerate(turns, start=1):
        where = f"{place}: message {number} of {column}"
        if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
            raise DataError(f"{where}: expected a role, one of {', '.join(_ROLES)}, and content.")
        messages.append(Message(turn["role"], text_of(where, turn, "content")))
    return tuple(messages)
