"""Rows: each is collated alone, none touches another, and what cannot be used is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from training import (
    attended,
    causal,
    classifier,
    documents,
    labelled,
    seq2seq_collator,
    tokenizer,
    trainer,
)

from hushtune.config import ConfigError
from hushtune.privacy import ledger as ledgers
from hushtune.tasks.batches import Shape
from hushtune.zeroth_order_trainer.form import Alphabet, Form, make_up
from hushtune.zo.estimators import Move


def losses_at(model: Any, folder: Path, rows: list[dict[str, Any]], collator: Any) -> np.ndarray:
    """(rows, moves) losses as a first step of all rows would compute them."""
    tuning = trainer(model, folder, rows, data_collator=collator, max_steps=1)
    tuning.train()
    run = tuning._run
    assert run is not None
    return run.losses.at(np.arange(len(rows)), [Move(0, 0.0), Move(1, 1e-2)], charge=0)


def frozen(folder: str) -> Any:
    """A model whose last norm moves alone, by so little that losses can be compared after."""
    model = causal(folder)
    model.requires_grad_(False)
    model.transformer.ln_f.requires_grad_(True)
    return model


def test_no_row_s_numbers_depend_on_another_row(tiny, tmp_path: Path, monkeypatch):
    folder = tiny("gpt2")
    collator, rows = seq2seq_collator(folder), documents(24)
    monkeypatch.setattr("hushtune.zo.update.Update.apply", lambda *_: None)
    whole = losses_at(frozen(folder), tmp_path / "whole", rows, collator)
    for removed in (0, 5, 23):
        kept = [place for place in range(24) if place != removed]
        some = losses_at(
            frozen(folder), tmp_path / f"{removed}", [rows[place] for place in kept], collator
        )
        assert np.array_equal(some, whole[kept])
    changed = [dict(row) for row in rows]
    changed[5] = documents(1, seed=99)[0]
    other = losses_at(frozen(folder), tmp_path / "changed", changed, collator)
    same = [place for place in range(24) if place != 5]
    assert np.array_equal(other[same], whole[same])
    assert not np.array_equal(other[5], whole[5])


def test_a_short_text_does_not_pay_for_the_longest(tiny, tmp_path: Path, monkeypatch):
    folder = tiny("gpt2")
    widths: list[int] = []
    model = causal(folder)
    padded = [{**row, **padding(row, 40)} for row in documents(60)]
    tuning = trainer(model, tmp_path, padded, data_collator=seq2seq_collator(folder), batch=60.0)
    tuning.train()
    run = tuning._run
    assert run is not None
    for batch in run.losses._task.micro_batches(np.arange(60)):
        width = batch.inputs["input_ids"].shape[1]
        widths.append(width)
        lengths = batch.inputs["attention_mask"][: len(batch.places)].sum(dim=1)
        assert (lengths < width).all()  # a column of padding in every row
    assert min(widths) == 16
    assert max(widths) == 48
    assert len(set(widths)) > 2


def padding(row: dict[str, Any], width: int) -> dict[str, Any]:
    """The row as a tokenizer pads it to a fixed width."""
    more = width - len(row["input_ids"])
    return {
        "input_ids": row["input_ids"] + [0] * more,
        "attention_mask": row["attention_mask"] + [0] * more,
        "labels": row["labels"] + [-100] * more,
    }


def test_padding_in_the_data_changes_nothing(tiny, tmp_path: Path, monkeypatch):
    folder = tiny("gpt2")
    collator, rows = seq2seq_collator(folder), documents(12)
    monkeypatch.setattr("hushtune.zo.update.Update.apply", lambda *_: None)
    plain = losses_at(frozen(folder), tmp_path / "plain", rows, collator)
    padded = [{**row, **padding(row, 40)} for row in rows]
    assert np.array_equal(losses_at(frozen(folder), tmp_path / "padded", padded, collator), plain)


def test_a_collator_may_make_labels(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    rows = [{"input_ids": row["input_ids"]} for row in documents()]
    collator = transformers.DataCollatorForLanguageModeling(tokenizer(folder), mlm=False)
    result = trainer(causal(folder), tmp_path, rows, data_collator=collator).train()
    assert result.global_step == 4


class Counting:
    """Remembers how many rows it has seen."""

    def __init__(self, collator: Any) -> None:
        self._collator = collator
        self._seen = 0

    def __call__(self, rows: list[Any]) -> Any:
        self._seen += len(rows)
        made = self._collator(rows)
        made["labels"][:, 0] = self._seen % 7
        return made


def generator_of_its_own(collator: Any) -> Any:
    generator = torch.Generator().manual_seed(0)

    def collate(rows: list[Any]) -> Any:
        made = collator(rows)
        made["labels"][:, 0] = int(torch.randint(8, 50, (1,), generator=generator))
        return made

    return collate


@pytest.mark.parametrize("kind", ["masks", "counts", "draws"])
def test_a_collator_with_chance_or_memory_is_refused(kind, tiny, tmp_path: Path):
    family, load = (
        ("bert", transformers.AutoModelForMaskedLM) if kind == "masks" else ("gpt2", None)
    )
    folder = tiny(family)
    model = causal(folder) if load is None else load.from_pretrained(folder)
    collator = {
        "masks": lambda: transformers.DataCollatorForLanguageModeling(tokenizer(folder)),
        "counts": lambda: Counting(seq2seq_collator(folder)),
        "draws": lambda: generator_of_its_own(seq2seq_collator(folder)),
    }[kind]()
    tuning = trainer(model, tmp_path, documents(), data_collator=collator)
    state = torch.get_rng_state()
    with pytest.raises(ConfigError, match="data_collator: makes something else of the same row"):
        tuning.train()
    assert torch.equal(torch.get_rng_state(), state)
    assert not (tmp_path / "ledger.jsonl").exists()


def longer(rows: list[dict[str, Any]]) -> None:
    rows[3] = {**rows[3], **{key: [9] * 41 for key in ("input_ids", "labels")}}
    rows[3]["attention_mask"] = [1] * 41


def unknown_token(rows: list[dict[str, Any]]) -> None:
    rows[3] = {**rows[3], "input_ids": [10**6, *rows[3]["input_ids"][1:]]}


def unknown_label(rows: list[dict[str, Any]]) -> None:
    rows[3] = {**rows[3], "labels": [-7, *rows[3]["labels"][1:]]}


def other_columns(rows: list[dict[str, Any]]) -> None:
    rows[3] = {key: rows[3][key] for key in ("input_ids", "labels")} | {"position_ids": [0]}


def no_row(rows: list[dict[str, Any]]) -> None:
    rows[3] = "a text"  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (longer, "row 4: is longer than max_length, 40"),
        (unknown_token, "row 4: input_ids is not from 0 to "),
        (unknown_label, "row 4: labels is not from 0 to "),
        (other_columns, "row 4: has not the columns"),
        (no_row, "row 4: is a str; expected a dictionary"),
    ],
)
def test_a_row_that_would_end_a_step_is_refused_before_the_first(spoil, message, tiny, tmp_path):
    folder, rows = tiny("gpt2"), documents()
    spoil(rows)
    tuning = trainer(causal(folder), tmp_path, rows, data_collator=seq2seq_collator(folder))
    with pytest.raises(ConfigError, match=message) as refused:
        tuning.train()
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ledger.jsonl").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (iter(documents()), "train_dataset: list_iterator is not accepted"),
        ([], "train_dataset: has no rows"),
        (None, "train_dataset: is needed"),
        ([{"input_ids": [9, 10]}] * 20, "its rows have no labels"),
    ],
)
def test_rows_of_another_kind_are_refused(rows, message, tiny, tmp_path: Path):
    tuning = trainer(causal(tiny("gpt2")), tmp_path, rows)
    with pytest.raises(ConfigError, match=message):
        tuning.train()


def test_a_label_that_the_model_does_not_have_is_refused(tiny, tmp_path: Path):
    rows = labelled()
    rows[5]["label"] = 2
    tuning = trainer(
        classifier(tiny("bert")), tmp_path, rows, processing_class=tokenizer(tiny("bert"))
    )
    with pytest.raises(ConfigError, match="row 6: labels is not from 0 to 1"):
        tuning.train()


def test_a_row_as_long_as_the_model_has_positions_is_refused(tiny, tmp_path: Path):
    folder = tiny("gpt2")  # 64 positions
    options: dict[str, Any] = {"data_collator": seq2seq_collator(folder)}
    with pytest.raises(ConfigError, match="max_length: 64 is not accepted; it must be at most 63"):
        trainer(causal(folder), tmp_path, documents(), max_length=64, **options).train()
    rows = documents()
    rows[0] = {**attended([9] * 63), "labels": [9] * 63}
    trainer(causal(folder), tmp_path, rows, max_length="auto", **options).train()
    shapes = ledgers.read(tmp_path / "ledger.jsonl").header["micro_batches"]
    assert shapes[-1][1] == 64


def test_what_a_collator_fails_with_says_nothing_of_the_row(tiny, tmp_path: Path):
    class Secret(Exception):
        pass

    def failing(rows: list[Any]) -> Any:
        raise Secret(f"no such token: {rows[0]['input_ids']}")

    tuning = trainer(causal(tiny("gpt2")), tmp_path, documents(), data_collator=failing)
    with pytest.raises(ConfigError, match="row 1: data_collator failed with Exception") as failed:
        tuning.train()
    assert failed.value.__context__ is None


def test_columns_that_nobody_knows_are_not_made_up(tiny, tmp_path: Path):
    folder = tiny("bert")
    rows = [{**row, "inputs_of_mine": [row["label"]]} for row in labelled()]
    model = classifier(folder)
    forward = model.forward

    def with_mine(inputs_of_mine: Any = None, **inputs: Any) -> Any:
        return forward(**inputs)

    model.forward = with_mine
    options: dict[str, Any] = {"remove_unused_columns": False}
    options["processing_class"] = tokenizer(folder)
    with pytest.raises(ConfigError, match="public_dataset: is needed, since nothing is known of"):
        trainer(model, tmp_path, rows, **options).train()
    public = [{**row, "inputs_of_mine": [0]} for row in labelled(20, seed=4)]
    result = trainer(model, tmp_path, rows, public_dataset=public, **options).train()
    assert result.global_step == 4


def test_images_are_rows_as_well(tmp_path: Path):
    draw = np.random.default_rng(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=8,
        patch_size=4,
        num_channels=1,
        num_labels=3,
    )
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config)
    rows = [
        {"pixel_values": draw.normal(size=(1, 8, 8)).astype(np.float32), "label": row % 3}
        for row in range(30)
    ]
    result = trainer(model, tmp_path, rows, micro_batch_tokens=8).train()
    assert result.global_step == 4
    header = ledgers.read(tmp_path / "ledger.jsonl").header
    assert header["learned"] == "examples"


def test_lengths_of_private_texts_are_not_logged(tiny, tmp_path: Path, caplog, capfd):
    folder = tiny("gpt2")
    words = tokenizer(folder)
    words.model_max_length = 20

    def tokenise(rows: list[Any]) -> Any:
        return words.pad(
            {
                key: [words(row["text"])["input_ids"] for row in rows]
                for key in ("input_ids", "labels")
            },
            return_tensors="pt",
        )

    rows = [{"text": words.decode(row["input_ids"])} for row in documents(30, seed=2)]
    assert any(len(words(row["text"])["input_ids"]) > 20 for row in rows)
    caplog.clear()
    capfd.readouterr()
    options: dict[str, Any] = {"remove_unused_columns": False, "max_length": 60}
    tuning = trainer(causal(folder), tmp_path, rows, data_collator=tokenise, **options)
    words.deprecation_warnings.clear()  # it is said once only
    tuning.train()
    said = caplog.text + "".join(capfd.readouterr())
    assert "longer than" not in said


def test_made_up_rows_are_enough_for_every_shape(tiny):
    ids = {"input_ids": torch.ones(5, dtype=torch.int64)}
    form = Form.of(ids, pad=0, two_texts=False)
    shapes = [Shape(8, 16), Shape(4, 24), Shape(1, 41)]
    made = make_up(form, Alphabet(60, np.arange(8, 60), 1, None, 60), shapes, seed=1)
    lengths = [len(each["input_ids"]) for each in made]
    for shape in shapes:
        assert sum(length < shape.length for length in lengths) > shape.rows
        assert shape.length - 1 in lengths
    assert len({tuple(each["input_ids"].tolist()) for each in made}) == len(made)
