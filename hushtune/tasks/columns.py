"""Which kind of task data is for, by the names of its columns and by nothing else in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hushtune.config import Config, ConfigError, DataConfig
from hushtune.tasks.files import DataError


def column_names(rows: Iterable[tuple[str, Mapping[str, Any]]], source: str) -> list[str]:
    """The names of the columns of rows, as the first one has them.

    Raises:
        DataError: if there is none.
    """
    for _, row in rows:
        return list(row)
    raise DataError(f"{source}: no rows; expected at least one.")


def with_kind(config: Config, columns: Sequence[str]) -> Config:
    """A configuration of which nothing is said of the task, with the kind that its columns tell.

    Raises:
        ConfigError: if they tell none, or one of which more must be said.
    """
    kind = _kind(columns, config.data)
    return dataclasses.replace(config, task=dataclasses.replace(config.task, kind=kind))


def _kind(columns: Sequence[str], data: DataConfig) -> Any:
    names = {*columns}
    if data.messages in names:
        return "chat"
    if {data.prompt, data.completion} <= names:
        return "completion"
    if {data.text, data.label, *data.choices} <= names:
        return "multiple-choice"
    if {data.text, data.label} <= names:
        raise ConfigError(
            "task.labels: {} is not accepted; texts with labels are classified, and none is read "
            "from private data: name them, each with a word for it, such as --task.labels negative "
            "terrible positive great."
        )
    if data.text in names:
        return "language-modelling"
    raise ConfigError(
        f"task.kind: the columns {', '.join(columns)} tell none; expected {data.messages}, "
        f"{data.prompt} and {data.completion}, or {data.text}, or what they are called instead "
        "(data.text and others)."
    )
