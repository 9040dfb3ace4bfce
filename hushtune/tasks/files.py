"""Rows of a file, or of a data set on the hub, as dictionaries.

Messages about malformed rows name the file and the row. They reach the owner of the data before
training starts, and nobody else.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hushtune.config import DataSet, data_set
from hushtune.private_folder import private_folder


class DataError(ValueError):
    """Data that cannot be used; the message names file and row and says what is accepted."""


def read_rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows as dictionaries, each with a description of its place for messages.

    Args:
        path: a file, or a data set on the hub or in a folder; see `hushtune.config.DataSet`.
    """
    if os.path.isfile(path):
        reader = _READERS.get(Path(path).suffix.lower())
        if reader is None:
            raise DataError(f"{path}: expected a file ending in .jsonl, .csv or .parquet.")
        return reader(path)
    source = data_set(path)
    if source is None:
        raise DataError(f"{path}: no such file; a data set is NAME[@CONFIGURATION][:SPLIT].")
    if not os.path.isdir(source.name) and _means_a_file(source.name):
        raise DataError(f"{path}: no such file; expected .jsonl, .csv or .parquet.")
    return _data_set_rows(path, source)


def _means_a_file(name: str) -> bool:
    """Whether a name is a file's rather than one on the hub, which is then not asked for it."""
    return (
        name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or re.fullmatch(r"\.[A-Za-z]\w*", Path(name).suffix) is not None
    )


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
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            yield from numbered(rows, path)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not Parquet ({_one_line(error)}).") from None


_READERS = {
    ".jsonl": _jsonl_rows,
    ".json": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _data_set_rows(path: str, source: DataSet) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import datasets

    if source.split == "all":
        raise DataError(f"{path}: all is no split; expected one of the data set's own.")
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    # The library keeps plain text in its cache.
    with private_folder() as cache:
        folder = source.name if os.path.isdir(source.name) else _downloaded(source.name, cache)
        try:
            rows = datasets.load_dataset(
                folder, source.configuration, split=source.split, cache_dir=cache
            )
        except Exception as error:
            raise DataError(f"{path}: no data set that can be read ({_one_line(error)}).") from None
        yield from numbered(rows, path)  # type: ignore[arg-type]


def _downloaded(name: str, cache: str) -> str:
    """The folder with the files of a data set on the hub."""
    import huggingface_hub
    from huggingface_hub import constants

    # Xet would keep pieces of the files in a cache of its own.
    without_xet, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    try:
        return huggingface_hub.snapshot_download(name, repo_type="dataset", cache_dir=cache)
    except Exception as error:
        raise DataError(
            f"{name}: neither a file nor a data set on the hub ({_one_line(error)})."
        ) from None
    finally:
        constants.HF_HUB_DISABLE_XET = without_xet


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
