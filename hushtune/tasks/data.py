"""Read text and refuse what cannot be used, before any budget is spent.

Messages about malformed rows name the file and the row. They reach the owner of the data before
training starts, and nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hushtune.config import DataConfig, TaskConfig
from hushtune.tasks.cells import name_of
from hushtune.tasks.files import DataError, read_rows
from hushtune.tasks.formats import row_reader
from hushtune.tasks.texts import Text
from hushtune.units import Units, group


@dataclass(frozen=True)
class LabelledText(Units):
    """Rows of text with their label, in the order in which their unit wants them.

    Attributes:
        texts: one per row, of the kind that the task reads.
        labels: (rows,) int64, positions in the list of label names, or of the right choice; zeros
            where the task has neither.
        unit_of_row: (rows,) int64, 0 … units-1; all rows of a unit stand together, in file order.
    """

    texts: Sequence[Text]
    labels: np.ndarray
    unit_of_row: np.ndarray

    @classmethod
    def unlabelled(cls, texts: Sequence[Text]) -> LabelledText:
        """Texts of no label, or of any, every one a unit."""
        return cls(texts, np.zeros(len(texts), np.int64), np.arange(len(texts)))


def read_labelled_text(
    path: str, data: DataConfig, task: TaskConfig, *, with_units: bool
) -> LabelledText:
    """Read JSONL, CSV, Parquet or a hub data set's `train` split.

    Args:
        with_units: whether `data.unit` names a column here; evaluation data needs none.

    Raises:
        DataError: missing file or column, malformed row, unknown label, empty text, null unit.
    """
    return labelled_text(read_rows(path), data, task, source=path, with_units=with_units)


def labelled_text(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    data: DataConfig,
    task: TaskConfig,
    *,
    source: str,
    with_units: bool,
) -> LabelledText:
    """`read_labelled_text`, of rows that are there.

    Args:
        rows: each with its place, for messages.
        source: where they are from, for messages.
        with_units: as above.
    """
    read = row_reader(task, data)
    texts, labels, units = [], [], []
    for place, row in rows:
        text, label = read(place, row)
        texts.append(text)
        labels.append(label)
        if with_units and data.unit is not None:
            units.append(name_of(place, row, data.unit, needed_for="unit"))
    if not texts:
        raise DataError(f"{source}: no rows; expected at least one.")
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
        count = len({name_of(place, row, data.unit, needed_for="unit") for place, row in rows})
    if not count:
        raise DataError(f"{path}: no rows; expected at least one.")
    return count


def _grouped(texts: list[Text], labels: list[int], units: list[str]) -> LabelledText:
    if not units:
        return LabelledText(texts, np.array(labels), np.arange(len(texts)))
    order, unit_of_row = group(units)
    return LabelledText([texts[i] for i in order], np.array(labels)[order], unit_of_row)
