"""Values of a row, checked; messages name the file, the row and the column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hushtune.tasks.files import DataError


def text_of(place: str, row: Mapping[str, Any], column: str) -> str:
    text = cell_of(place, row, column)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: {column} is empty or not text.")
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a pair of surrogates, which JSON can spell and no tokenizer can read.
        raise DataError(f"{place}: {column} is not Unicode text.") from None
    return text


def name_of(place: str, row: Mapping[str, Any], column: str, *, needed_for: str) -> str:
    """A label's or unit's name, as the configuration spells it."""
    value = cell_of(place, row, column)
    if value is None or value != value or not str(value).strip():
        raise DataError(f"{place}: {column} is null or empty; every row needs its {needed_for}.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 7 and 7.0 are one user
    # `true` is spelled the same in JSON data and in YAML.
    return json.dumps(value) if isinstance(value, bool) else str(value).strip()


def cell_of(place: str, row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise DataError(f"{place}: no column {column!r}; it has {', '.join(map(str, row))}.")
    return row[column]
