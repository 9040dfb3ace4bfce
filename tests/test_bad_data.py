"""Bad data is refused in one line that names the file or row, before any budget is spent."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import GOOD_ROWS, Refusal


@pytest.fixture
def refusal(run_arguments: list[str], tmp_path: Path, capsys) -> Refusal:
    return Refusal(run_arguments, tmp_path, capsys)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"body": "x", "label": "positive"}', "no column 'text'; it has body, label."),
        ('{"text": "x", "mood": "positive"}', "no column 'label'; it has text, mood."),
        (
            '{"text": "x", "label": "neutral"}',
            "unknown label 'neutral'; task.labels has negative, positive.",
        ),
        ('{"text": "x", "label": null}', "label is null or empty; every row needs its label."),
        ('{"text": "", "label": "positive"}', "text is empty or not text."),
        ('{"text": " \\n", "label": "positive"}', "text is empty or not text."),
        ('{"text": 7, "label": "positive"}', "text is empty or not text."),
        ('{"text": null, "label": "positive"}', "text is empty or not text."),
        ('{"text": "\\ud800", "label": "positive"}', "text is not Unicode text."),
        ('{"text": "x", "lab', "not JSON ("),
        ('["x", "positive"]', "expected a JSON object with named values."),
        ("7", "expected a JSON object with named values."),
    ],
)
def test_a_row_that_cannot_be_used_is_named(refusal: Refusal, row: str, message: str):
    line = refusal.of_data("data.jsonl", GOOD_ROWS + row + "\n" + GOOD_ROWS)
    assert line.startswith(f", row 21: {message}")


@pytest.mark.parametrize("unit", ["null", '""', "NaN"])
def test_a_row_without_its_unit_is_named(refusal: Refusal, unit: str):
    row = f'{{"text": "x", "label": "positive", "user_id": {unit}}}\n'
    line = refusal.of_data("data.jsonl", GOOD_ROWS + row, "--data.unit", "user_id")
    assert line == ", row 21: user_id is null or empty; every row needs its unit."


def test_a_unit_column_that_does_not_exist_is_named(refusal: Refusal):
    line = refusal.of_data("data.jsonl", GOOD_ROWS, "--data.unit", "customer")
    assert line == ", row 1: no column 'customer'; it has text, label, user_id."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.jsonl", "", ": no rows; expected at least one."),
        ("data.csv", "", ": no rows; expected at least one."),
        ("data.csv", "text,label\n", ": no rows; expected at least one."),
        ("data.jsonl", b'{"text": "caf\xe9"}\n', ": expected text in UTF-8."),
        ("data.csv", b"text,label\ncaf\xe9,positive\n", ": expected text in UTF-8."),
        ("data.txt", "x", ": expected a file ending in .jsonl, .csv or .parquet."),
        ("data", "x", ": expected a file ending in .jsonl, .csv or .parquet."),
        (
            "data.csv",
            "text,label\nx\n",
            ", row 2: 1 values; expected 2, as the header has.",
        ),
        (
            "data.csv",
            "text,label\nx,y,z\n",
            ", row 2: 3 values; expected 2, as the header has.",
        ),
        (
            "data.csv",
            'text,label\n"x,positive\n',
            ", row 1 or the next: not CSV (unexpected end of data).",
        ),
        ("data.parquet", "x", ": not Parquet ("),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    refusal: Refusal, name: str, content: str | bytes, message: str
):
    assert refusal.of_data(name, content).startswith(message)


def test_a_file_that_does_not_exist_is_named(refusal: Refusal):
    path = str(refusal.folder / "missing.jsonl")
    wanted = f"{path}: no such file; expected .jsonl, .csv or .parquet."
    assert refusal("--data.train", path) == wanted
    assert refusal("--data.eval", path) == wanted
    folder = refusal.folder / "empty"
    folder.mkdir()
    said = refusal("--data.train", str(folder))
    assert said.startswith(f"{folder}: no data set that can be read (")
