"""Rows that do not fit are counted, of public data alone, and what a model sees is the same."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from commands import command
from conftest import write_reviews

from hushtune.config import DataConfig, ModelConfig, TaskConfig
from hushtune.models.load import load_model
from hushtune.tasks.texts import Chat, Choices, Completion, Message, Pair

SHORT, LONG = "good film", " ".join(["was"] * 200)
LABELS = dict(zip(("no", "yes"), tiny_models.SINGLE, strict=True))
SEVERAL = dict(zip(("no", "yes"), tiny_models.SEVERAL, strict=True))

CASES: dict[str, tuple[str, dict[str, Any], Any, list[Any]]] = {
    "mask": ("bert", {"labels": LABELS}, SHORT, [LONG]),
    "head": ("bert", {"labels": LABELS, "readout": "head"}, SHORT, [LONG]),
    "descriptions": ("encoder", {"labels": LABELS}, SHORT, [LONG]),
    "one token": ("opt", {"labels": LABELS}, SHORT, [LONG]),
    "several tokens": ("opt", {"labels": SEVERAL}, SHORT, [LONG]),
    "encoder-decoder": ("t5", {"labels": LABELS}, SHORT, [LONG]),
    "pair": (
        "bert",
        {"labels": LABELS},
        Pair(SHORT, SHORT),
        [Pair(LONG, SHORT), Pair(SHORT, LONG), Pair("", LONG)],
    ),
    "choices": (
        "opt",
        {"kind": "multiple-choice"},
        Choices(SHORT, ("good", "bad")),
        [Choices(LONG, ("good", "bad")), Choices(SHORT, ("good", LONG))],
    ),
    "completion": (
        "opt",
        {"kind": "completion"},
        Completion(SHORT, "bad", ("bad",)),
        [Completion(LONG, "bad", ("bad",)), Completion(SHORT, LONG, (LONG,))],
    ),
    "completion by a decoder": (
        "t5",
        {"kind": "completion"},
        Completion(SHORT, "bad", ("bad",)),
        [Completion(LONG, "bad", ("bad",)), Completion(SHORT, LONG, (LONG,))],
    ),
    "document": ("opt", {"kind": "language-modelling"}, SHORT, [LONG]),
    "chat": (
        "qwen3",
        {"kind": "chat"},
        Chat((Message("user", "so"), Message("assistant", "good"))),
        [Chat((Message("user", LONG), Message("assistant", "good")))],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_row_of_which_a_part_does_not_fit_is_known(case, tiny, tmp_path: Path):
    family, task, short, long = CASES[case]
    folder = tiny(family)
    if case == "chat":
        folder = tiny_models.with_chat(folder, tmp_path / "chat")
    second = "second" if case == "pair" else None
    data = DataConfig(max_length=48, max_completion_length=8, second=second)
    readout = load_model(ModelConfig(name=folder), TaskConfig(**task), data, seed=0).readout
    assert not any(sequence.cut for sequence in readout.encode(short))
    assert not any(sequence.cut for sequence in readout.dummy)
    for text in long:
        example = readout.encode(text)
        assert any(sequence.cut for sequence in example)
        # Features are kept by example, and a cut one is the same to the model as a short one.
        whole = tuple(dataclasses.replace(sequence, cut=False) for sequence in example)
        assert example == whole
        assert hash(example) == hash(whole)


@pytest.mark.parametrize("method", [[], ["--method.name", "dp-sgd"]])
def test_public_rows_that_were_cut_are_counted_and_private_ones_are_not(
    method, tiny, tmp_path: Path, capsys
):
    train = write_reviews(tmp_path / "train.jsonl", 12)
    public = tmp_path / "public.jsonl"
    rows = [{"text": text, "label": "negative"} for text in (SHORT, LONG, SHORT, LONG)]
    public.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with open(train, "a", encoding="utf-8") as file:
        file.write(json.dumps({"text": LONG, "label": "positive"}) + "\n")
    run = tmp_path / "run"
    summary = command(
        capsys, "train", "--model.name", tiny("encoder"), "--data.train", train, "--data.eval",
        str(public), "--task.labels", "negative", "bad", "positive", "good", "--method.steps", "2",
        "--data.max-length", "32", "--method.batch", "6", "--privacy.epsilon", "4", "--output",
        str(run), *method,
    )  # fmt: skip
    assert summary["evaluation_rows_cut"] == 2
    found = command(capsys, "eval", str(run), "--data", str(public))
    assert (found["rows"], found["rows_cut"]) == (4, 2)
    if not method:
        noised = command(
            capsys, "eval", str(run), "--data", train, "--private", "--epsilon", "1"
        )  # fmt: skip
        assert not any("cut" in name for name in noised)
