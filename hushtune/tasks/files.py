"""Rows of a file, or of a data set on the hub, as dictionaries.

Messages about malformed rows name the file and the row. They reach the owner of the data before
training starts, and nobody else.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """Data that cannot be used; the message names file and row and says what is accepted."""


def read_rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
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


def numbered(
    rows: Iterable[Mapping[str, Any]], source: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows that are in memory, each with a description of its place for messages."""
    for number, row in enumerate(rows, start=1):
        yield f"{source}, row {number}", row


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


def _parquet_rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not Parquet ({_one_line(error)}).") from None
    yield from numbered(table.to_pylist(), path)


def _hub_rows(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
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
        yield from numbered(rows, name)  # type: ignore[arg-type]


def _lines(path: str) -> Iterator[str]:
    # Spreadsheets put a byte order mark in front of UTF-8; it is no part of the first name. Line
    # ends stay as they are, since a quoted value may hold some.
    with open(path, encoding="utf-8-sig", newline="") as lines:
        try:
            yield from lines
        except UnicodeDecodeError:
            raise DataError(f"{path}: expected text in UTF-8.") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
