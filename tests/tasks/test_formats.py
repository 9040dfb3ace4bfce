"""What each kind of task reads from a row, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hushtune.config import ConfigError, DataConfig, TaskConfig
from hushtune.tasks.data import DataError, read_labelled_text
from hushtune.tasks.texts import Chat, Choices, Completion, Message, Pair, Text

CHAT = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so."}]


def read(
    folder: Path, row: dict[str, Any], kind: str, *, template: str = "", **data: Any
) -> tuple[Text, int]:
    path = folder / "data.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    labels = {"no": "no", "yes": "yes"} if kind == "classification" else {}
    task = TaskConfig(kind=kind, labels=labels, template=template)  # type: ignore[arg-type]
    found = read_labelled_text(str(path), DataConfig(**data), task, with_units=False)
    return found.texts[0], int(found.labels[0])


def test_a_pair_is_two_columns(tmp_path: Path):
    row = {"text": "it rains", "other": "it is wet", "label": "yes"}
    assert read(tmp_path, row, "classification", second="other") == (
        Pair("it rains", "it is wet"),
        1,
    )


@pytest.mark.parametrize("label", [1, "1", "wet", 1.0])
def test_options_are_a_list_or_columns_and_the_right_one_a_number_or_itself(tmp_path: Path, label):
    options = {"choices": ["dry", "wet"], "one": "dry", "two": "wet"}
    row = {"text": "it rains:", "label": label, **options}
    expected = Choices("it rains:", ("dry", "wet")), 1
    assert read(tmp_path, row, "multiple-choice") == expected
    assert read(tmp_path, row, "multiple-choice", choices=("one", "two")) == expected
    shown = read(tmp_path, row, "multiple-choice", template="Either {one} or {two}. {text}")[0]
    assert shown == Choices("Either dry or wet. it rains:", ("dry", "wet"))


def test_a_completion_follows_a_column_or_a_template_of_columns(tmp_path: Path):
    row = {"prompt": "2 + 2 =", "completion": "4", "context": "{sums}", "question": "why?"}
    assert read(tmp_path, row, "completion")[0] == Completion("2 + 2 =", "4", ("4",))
    template = "{context} Question: {question} {{so}} Answer:"
    found = read(tmp_path, row, "completion", template=template)[0]
    assert found == Completion("{sums} Question: why? {so} Answer:", "4", ("4",))


def test_of_several_right_answers_the_first_is_learned(tmp_path: Path):
    row = {"prompt": "a", "answers": ["four", "4"]}
    found = read(tmp_path, row, "completion", completion="answers")[0]
    assert found == Completion("a", "four", ("four", "4"))


def test_a_conversation_is_a_list_of_messages(tmp_path: Path):
    expected = Chat((Message("user", "why?"), Message("assistant", "so.")))
    assert read(tmp_path, {"messages": CHAT}, "chat")[0] == expected
    assert read(tmp_path, {"turns": CHAT}, "chat", messages="turns")[0] == expected


def test_a_document_is_a_text(tmp_path: Path):
    row = {"text": "all of it", "label": "no matter"}
    assert read(tmp_path, row, "language-modelling") == ("all of it", 0)


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("multiple-choice", {"text": "a", "choices": "b", "label": 0}, "choices is not a list"),
        ("multiple-choice", {"text": "a", "choices": ["b", ""], "label": 0}, "choices is empty"),
        ("multiple-choice", {"text": "a", "choices": ["b", 7], "label": 0}, "choices is empty"),
        ("multiple-choice", {"text": "a", "choices": ["b"], "label": 0}, "1 options to choose"),
        ("multiple-choice", {"text": "a", "choices": ["b", "c"], "label": 2}, "label is '2'"),
        ("multiple-choice", {"text": "a", "choices": ["b", "c"], "label": -1}, "label is '-1'"),
        ("multiple-choice", {"text": "a", "choices": ["b", "c"], "label": None}, "label is null"),
        ("multiple-choice", {"text": "a", "choices": ["b", "c"]}, "no column 'label'"),
        ("completion", {"prompt": "a", "completion": ""}, "completion is empty or not text"),
        ("completion", {"prompt": "a", "completion": []}, "completion is an empty list"),
        ("completion", {"prompt": "a", "completion": ["b", 7]}, "completion is empty or not text"),
        ("completion", {"prompt": " ", "completion": "b"}, "prompt is empty or not text"),
        ("completion", {"prompt": "a"}, "no column 'completion'"),
        ("chat", {"messages": "hello"}, "messages is not a list of messages"),
        ("chat", {"messages": []}, "messages has no turn of the assistant"),
        ("chat", {"messages": CHAT[:1]}, "messages has no turn of the assistant"),
        ("chat", {"messages": [*CHAT, {"role": "robot", "content": "a"}]}, "message 3 of messages"),
        ("chat", {"messages": [*CHAT, {"role": "user"}]}, "message 3 of messages: no column"),
        ("chat", {"messages": [*CHAT, {"role": "user", "content": ""}]}, "content is empty"),
        ("chat", {"messages": [*CHAT, "hello"]}, "message 3 of messages: expected a role"),
        ("language-modelling", {"text": ""}, "text is empty or not text"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, kind, row, message):
    with pytest.raises(DataError, match=r"data\.jsonl, row 1: ") as refused:
        read(tmp_path, row, kind)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "template", ["no field", "{0}", "{context!r}", "{context:>9}", "{", "{a.b}"]
)
def test_a_template_of_columns_has_plain_names_in_braces(tmp_path: Path, template):
    row = {"prompt": "a", "completion": "b", "context": "c"}
    with pytest.raises(ConfigError, match=r"task\.template: .* must name columns in braces"):
        read(tmp_path, row, "completion", template=template)
