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
        bounds = np.searchsorted(self.unit_of_row, np.arange(self.units + 1))
        pieces = [np.arange(bounds[unit], bounds[unit + 1]) for unit in units]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)


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
        text = _cell(place, row, data.text)
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{place}: {data.text} is empty or not text.")
        label = str(_cell(place, row, data.label))
        if label not in position:
            raise DataError(
                f"{place}: unknown label {label!r}; task.labels has {', '.join(label_names)}."
            )
        if with_units and data.unit is not None:
            unit = _cell(place, row, data.unit)
            if unit is None or unit == "" or unit != unit:
                raise DataError(f"{place}: {data.unit} is null; every row needs its unit.")
            units.append(str(unit))
        texts.append(text)
        labels.append(position[label])
    if not texts:
        raise DataError(f"{path}: no rows.")
    return _grouped(texts, labels, units)


def count_units(path: str, data: DataConfig) -> int:
    """Number of units in a file, looking at nothing else."""
    if data.unit is None:
        return sum(1 for _ in read_rows(path))
    return len({str(_cell(place, row, data.unit)) for place, row in read_rows(path)})


def read_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows as dictionaries, each with a description of its place for messages."""
    if not os.path.exists(path):
        if Path(path).suffix or path.startswith((".", "/")):
            raise DataError(f"{path}: no such file.")
        yield from _hub_rows(path)
        return
    readers = {".jsonl": _jsonl_rows, ".json": _jsonl_rows, ".csv": _csv_rows,
               ".parquet": _parquet_rows}
    reader = readers.get(Path(path).suffix)
    if reader is None:
        raise DataError(f"{path}: expected a file ending in .jsonl, .csv or .parquet.")
    yield from reader(path)


def _jsonl_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(_decoded(path, lines), start=1):
            if not line.strip():
                continue
            place = f"{path}, row {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{place}: not JSON ({error.msg}).") from None
            if not isinstance(row, dict):
                raise DataError(f"{place}: expected a JSON object with named values.")
            yield place, row


def _csv_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(path, encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.DictReader(_decoded(path, lines)), start=2):
            yield f"{path}, row {number}", row


def _parquet_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not Parquet ({error}).") from None
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", row


def _hub_rows(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets

    # The library keeps plain text in its cache: give it a private folder that goes away.
    with tempfile.TemporaryDirectory(prefix="hushtune-") as folder:
        try:
            rows = datasets.load_dataset(name, split="train", cache_dir=folder)
        except Exception as error:
            raise DataError(f"{name}: neither a file nor a data set on the hub ({error}).") from None
        for number, row in enumerate(rows, start=1):
            yield f"{name}, row {number}", row  # type: ignore[misc]


def _decoded(path: str, lines: Iterator[str]) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError:
        raise DataError(f"{path}: expected text in UTF-8.") from None


def _cell(place: str, row: dict[str, Any], column: str) -> Any:
    if column not in row:
        raise DataError(f"{place}: no column {column!r}; it has {', '.join(map(str, row))}.")
    return row[column]


def _grouped(texts: list[str], labels: list[int], units: list[str]) -> LabelledText:
    if not units:
        return LabelledText(texts, np.array(labels), np.arange(len(texts)))
    number_of: dict[str, int] = {}
    unit_of_row = np.array([number_of.setdefault(unit, len(number_of)) for unit in units])
    order = np.argsort(unit_of_row, kind="stable")
    return LabelledText([texts[i] for i in order], np.array(labels)[order], unit_of_row[order])
