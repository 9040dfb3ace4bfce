"""Read labelled text and refuse what cannot be used, before any budget is spent.

Messages about malformed rows name the file and the row. They reach the owner of the data before
training starts, and nobody else.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hushtune.config import DataConfig


class DataError(ValueError):
    """Data that cannot be used; the message names file and row and says what is accepted."""


@dataclass(frozen=True)
class LabelledText:
    """Rows of text with their label, in the order in which their unit wants them.

    Attributes:
        texts: one per row.
        labels: (rows,) int64, positions in the list of label names.
        unit_of_row: (rows,) int64, 0 … units-1; all rows of a unit stand together, in file order.
    """

    texts: list[str]
    labels: np.ndarray
    unit_of_row: np.ndarray

    @property
    def units(self) -> int:
        """Number of units of privacy."""
        return int(self.unit_of_row[-1]) + 1 if len(self.unit_of_row) else 0

    def rows_of(self, units: np.ndarray) -> np.ndarray:
        """All rows of the given units (ascending indices), units in order."""
        return np.flatnonzero(np.isin(self.unit_of_row, units))


def read_labelled_text(
    path: str, data: DataConfig, label_names: tuple[str, ...], *, with_units: bool
) -> LabelledText:
    """Read JSONL, CSV, Parquet or a hub data set's `train` split.

    Args:
        with_units: whether `data.unit` names a column here; evaluation data needs none.

    Raises:
        DataError: missing file or column, malformed row, unknown label, empty text, null unit.
    """
    position = {name: index for index, name in enumerate(label_names)}
    texts, labels, units = [], [], []
    for place, row in read_rows(path):
        texts.append(_text(place, row, data.text))
        label = _name(place, row, data.label, needed_for="label")
        if label not in position:
            raise DataError(
                f"{place}: unknown label {label!r}; task.labels has {', '.join(label_names)}."
            )
        labels.append(position[label])
        if with_units and data.unit is not None:
            units.append(_name(place, row, data.unit, needed_for="unit"))
    if not texts:
        raise DataError(f"{path}: no rows; expected at least one.")
    return _grouped(texts, labels, units)


def count_units(path: str, data: DataConfig) -> int:
    """Number of units in a file, looking at nothing else.

    Raises:
        DataError: missing file, malformed row, null unit, no rows.
    """
    rows = read_rows(path)
    if data.unit is None:
        count = sum(1 for _ in rows)
    else:
        count = len({_name(place, row, data.unit, needed_for="unit") for place, row in rows})
    if not count:
        raise DataError(f"{path}: no rows; expected at least one.")
    return count


def read_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows as dictionaries, each with a description of its place for messages."""
    if not os.path.exists(path):
        if Path(path).suffix or path.startswith((".", "/")):
            raise DataError(f"{path}: no such file; expected .jsonl, .csv or .parquet.")
        yield from _hub_rows(path)
        return
    readers = {
        ".jsonl": _jsonl_rows,
        ".json": _jsonl_rows,
        ".csv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    reader = readers.get(Path(path).suffix.lower())
    if reader is None or os.path.isdir(path):
        raise DataError(f"{path}: expected a file ending in .jsonl, .csv or .parquet.")
    yield from reader(path)


def _jsonl_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path}, row {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{place}: not JSON ({error.msg}); expected one object a line."
            ) from None
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected a JSON object with named values.")
        yield place, row


def _csv_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    place, header = f"{path}, row 1", None
    try:
        for number, values in enumerate(csv.reader(_lines(path), strict=True), start=1):
            place = f"{path}, row {number}"
            if header is None:
                header = values
            elif values:
                if len(values) != len(header):
                    raise DataError(
                        f"{place}: {len(values)} values; expected {len(header)}, as the header has."
                    )
                yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise DataError(f"{place} or the next: not CSV ({error}).") from None


def _parquet_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not Parquet ({_one_line(error)}).") from None
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", row


def _hub_rows(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets
    import huggingface_hub

    # The library keeps plain text in its cache: give it a private folder that goes away.
    with tempfile.TemporaryDirectory(prefix="hushtune-") as folder:
        try:
            rows = datasets.load_dataset(
                huggingface_hub.snapshot_download(name, repo_type="dataset", cache_dir=folder),
                split="train",
                cache_dir=folder,
            )
        except Exception as error:
            raise DataError(
                f"{name}: neither a file nor a data set on the hub ({_one_line(error)})."
            ) from None
        for number, row in enumerate(rows, start=1):
            yield f"{name}, row {number}", row  # type: ignore[misc]


def _lines(path: str) -> Iterator[str]:
    # Spreadsheets put a byte order mark in front of UTF-8; it is no part of the first name. Line
    # ends stay as they are, since a quoted value may hold some.
    with open(path, encoding="utf-8-sig", newline="") as lines:
        try:
            yield from lines
        except UnicodeDecodeError:
            raise DataError(f"{path}: expected text in UTF-8.") from None


def _text(place: str, row: dict[str, Any], column: str) -> str:
    text = _cell(place, row, column)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: {column} is empty or not text.")
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a pair of surrogates, which JSON can spell and no tokenizer can read.
        raise DataError(f"{place}: {column} is not Unicode text.") from None
    return text


def _name(place: str, row: dict[str, Any], column: str, *, needed_for: str) -> str:
    """A label's or unit's name, as the configuration spells it."""
    value = _cell(place, row, column)
    if value is None or value != value or not str(value).strip():
        raise DataError(f"{place}: {column} is null or empty; every row needs its {needed_for}.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 7 and 7.0 are one user
    # `true` is spelled the same in JSON data and in YAML.
    return json.dumps(value) if isinstance(value, bool) else str(value).strip()


def _cell(place: str, row: dict[str, Any], column: str) -> Any:
    if column not in row:
        raise DataError(f"{place}: no column {column!r}; it has {', '.join(map(str, row))}.")
    return row[column]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _grouped(texts: list[str], labels: list[int], units: list[str]) -> LabelledText:
    if not units:
        return LabelledText(texts, np.array(labels), np.arange(len(texts)))
    number_of: dict[str, int] = {}
    unit_of_row = np.array([number_of.setdefault(unit, len(number_of)) for unit in units])
    order = np.argsort(unit_of_row, kind="stable")
    return LabelledText([texts[i] for i in order], np.array(labels)[order], unit_of_row[order])
