"""Reading labelled text: every format gives the same rows, and units stay together."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushtune.config import DataConfig, TaskConfig
from hushtune.tasks.data import DataError, LabelledText, count_units, read_labelled_text

LABELS = ("negative", "positive")

ROWS: list[dict[str, Any]] = [
    {"text": "a good film", "label": "positive", "user_id": "ann"},
    {"text": 'a "bad", long\nfilm', "label": "negative", "user_id": "bob"},
    {"text": "žluťoučký kůň 🙂", "label": "positive", "user_id": "ann"},
    {"text": " spaces stay ", "label": "negative", "user_id": "eve"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix.lower() == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        lines = (json.dumps(row) + "\n" for row in rows)
        path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def task_of(labels: tuple[str, ...]) -> TaskConfig:
    return TaskConfig(labels=dict(zip(labels, labels, strict=True)))


def read(path: str, *, unit: str | None = None, labels: tuple[str, ...] = LABELS) -> LabelledText:
    return read_labelled_text(path, DataConfig(unit=unit), task_of(labels), with_units=True)


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet", ".JSONL"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str):
    path = write(tmp_path / f"data{ending}", ROWS)
    data = read(path)
    assert data.texts == [row["text"] for row in ROWS]
    assert [LABELS[label] for label in data.labels] == [row["label"] for row in ROWS]
    assert data.unit_of_row.tolist() == [0, 1, 2, 3]
    assert (data.units, count_units(path, DataConfig())) == (4, 4)


def test_rows_of_a_unit_stand_together_in_file_order(tmp_path: Path):
    path = write(tmp_path / "data.jsonl", ROWS)
    data = read(path, unit="user_id")
    assert data.texts == [ROWS[index]["text"] for index in (0, 2, 1, 3)]
    assert data.labels.tolist() == [1, 1, 0, 0]
    assert data.unit_of_row.tolist() == [0, 0, 1, 2]
    assert (data.units, count_units(path, DataConfig(unit="user_id"))) == (3, 3)


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    data=st.data(),
)
def test_the_rows_of_units_are_all_of_theirs_and_no_others(sizes: list[int], data):
    unit_of_row = np.repeat(np.arange(len(sizes)), sizes)
    texts = LabelledText(["x"] * len(unit_of_row), np.zeros(len(unit_of_row), int), unit_of_row)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(sizes) - 1))))
    rows = texts.rows_of(np.array(chosen, dtype=np.int64))
    assert rows.tolist() == [row for row, unit in enumerate(unit_of_row) if unit in chosen]


def test_evaluation_data_needs_no_units(tmp_path: Path):
    rows = [{"text": "fine", "label": "positive"}]
    path = write(tmp_path / "eval.jsonl", rows)
    config = DataConfig(unit="user_id")
    assert read_labelled_text(path, config, task_of(LABELS), with_units=False).units == 1


def test_columns_may_have_other_names(tmp_path: Path):
    path = write(tmp_path / "data.csv", [{"body": "good", "mood": "positive"}])
    config = DataConfig(text="body", label="mood")
    assert read_labelled_text(path, config, task_of(LABELS), with_units=True).texts == ["good"]


def test_labels_that_are_numbers_or_booleans_are_spelled_as_in_the_configuration(tmp_path: Path):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    assert read(write(tmp_path / "n.jsonl", rows), labels=("0", "1")).labels.tolist() == [1, 0]
    rows = [{"text": "a", "label": True}, {"text": "b", "label": False}]
    path = write(tmp_path / "b.jsonl", rows)
    assert read(path, labels=("false", "true")).labels.tolist() == [1, 0]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path):
    path = tmp_path / "sheet.csv"
    path.write_bytes("\ufefftext,label\r\ngood,positive\r\n".encode())
    assert read(str(path)).texts == ["good"]


def test_empty_lines_hold_no_rows(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('\n{"text": "a", "label": "positive"}\n\n')
    (tmp_path / "a.csv").write_text("text,label\n\na,positive\n\n")
    for name in ("a.jsonl", "a.csv"):
        assert read(str(tmp_path / name)).units == 1


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_counting_units_refuses_null_units_as_reading_does(tmp_path: Path, value: object):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"text": "a", "label": "positive", "user_id": value}) + "\n")
    message = r"data\.jsonl, row 1: user_id is null or empty; every row needs its unit\."
    with pytest.raises(DataError, match=message):
        count_units(str(path), DataConfig(unit="user_id"))
    with pytest.raises(DataError, match=message):
        read(str(path), unit="user_id")


def test_a_message_about_a_text_does_not_repeat_it(tmp_path: Path):
    path = tmp_path / "data.jsonl"
    for line in (
        '{"text": ["secret"], "label": "positive"}',
        '{"text": "secret \\ud800", "label": "positive"}',
        '{"text": "secret" "label": "positive"}',
        '["secret"]',
    ):
        path.write_text(line + "\n")
        with pytest.raises(DataError) as refusal:
            read(str(path))
        assert "secret" not in str(refusal.value)
        assert refusal.value.__cause__ is None
