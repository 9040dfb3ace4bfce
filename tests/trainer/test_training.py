"""Tuning through the trainer: what moves, what is learned, units, and the same bits by replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import peft
import pytest
import torch
import transformers
from torch.nn import functional
from training import (
    attended,
    causal,
    classifier,
    documents,
    labelled,
    same,
    seen_inside,
    seq2seq_collator,
    texts,
    tokenizer,
    trainer,
    with_lora,
)

from hushtune import core
from hushtune.config import ConfigError
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import LedgerError
from hushtune.tasks.files import DataError
from hushtune.zo.probe import ProbeError


@pytest.mark.parametrize("make", [list, datasets.Dataset.from_list])
def test_a_causal_model_moves_as_its_ledger_says(make, tiny, tmp_path: Path):
    folder = tiny("gpt2")
    model = causal(folder)
    result = trainer(
        model,
        tmp_path,
        make(documents()),
        processing_class=tokenizer(folder),
        data_collator=seq2seq_collator(folder),
    ).train()
    assert result.global_step == 4
    assert 3.9 < result.guarantee["epsilon"] <= 4.0
    assert result.guarantee["population"] == 60
    again = causal(folder)
    assert not same(model, again)
    core.replay(again, tmp_path / "ledger.jsonl")
    assert same(model, again)


def test_a_classifier_learns(tiny, tmp_path: Path):
    folder = tiny("bert")
    labels = [row % 2 for row in range(400)]
    rows = [
        {**attended([2, *[9 + label] * 4, *ids[:3], 3]), "label": label}
        for ids, label in zip(texts(400), labels, strict=True)
    ]
    model = classifier(folder)
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.requires_grad_(False)
    settings = {"epsilon": 8.0, "directions": 16, "max_steps": 40, "batch": 320.0}
    settings["micro_batch_tokens"] = 2048
    tuning = trainer(
        model,
        tmp_path,
        rows[:320],
        eval_dataset=rows[320:],
        learning_rate=1.0,
        processing_class=tokenizer(folder),
        **settings,
        compute_metrics=lambda found: {
            "accuracy": (found.predictions.argmax(-1) == found.label_ids).mean()
        },
    )
    before = tuning.evaluate()
    tuning.train()
    after = tuning.evaluate()
    # Of sixteen runs, each with its own noise, the worst had 0.975.
    assert before["eval_accuracy"] < 0.7
    assert after["eval_accuracy"] > 0.8
    assert after["eval_loss"] < before["eval_loss"]


def test_adapters_move_and_load_with_peft(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    model = with_lora(causal(folder), target_modules=["c_attn"], fan_in_fan_out=True)
    tuning = trainer(
        model,
        tmp_path,
        documents(),
        processing_class=tokenizer(folder),
        data_collator=seq2seq_collator(folder),
    )
    tuning.train()
    tuning.save_model()
    header = ledgers.read(tmp_path / "ledger.jsonl").header
    assert all(".lora_" in name for name in header["moving"])
    again = with_lora(causal(folder), target_modules=["c_attn"], fan_in_fan_out=True)
    assert not same(model, again)
    core.replay(again, tmp_path / "ledger.jsonl")
    assert same(model, again)
    loaded = peft.PeftModel.from_pretrained(causal(folder), tmp_path)
    assert same(model, loaded)


def test_adapters_on_another_base_are_no_replay(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    lora = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
    options: dict[str, Any] = {"data_collator": seq2seq_collator(folder)}
    trainer(with_lora(causal(folder), **lora), tmp_path, documents(), **options).train()
    base = causal(folder)
    with torch.no_grad():
        base.transformer.wpe.weight[0, 0] += 1
    other = with_lora(base, **lora)
    with pytest.raises(LedgerError, match="that do not move are not those"):
        core.replay(other, tmp_path / "ledger.jsonl")
    resuming = trainer(other, tmp_path, documents(), **options)
    with pytest.raises(LedgerError, match="that do not move are not those"):
        resuming.train(resume_from_checkpoint=True)


def test_what_does_not_require_gradients_stays_and_frozen_layers_run_once(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    model = causal(folder)
    model.requires_grad_(False)
    model.transformer.h[1].requires_grad_(True)
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    tuning = trainer(model, tmp_path, documents(), data_collator=seq2seq_collator(folder))
    tuning.train()
    first = causal(folder)
    for (name, moved), start in zip(model.named_parameters(), first.parameters(), strict=True):
        assert torch.equal(moved, start) == (".h.1." not in name), name
    run = tuning._run
    assert run is not None
    model.transformer.h[0].attn.register_forward_hook(count)
    inputs = run.losses._task.public_batches()[0].inputs  # type: ignore[attr-defined]
    run.losses.of_inputs(inputs, _moves(3), charge=0)
    assert runs == 1


def _moves(count: int) -> list[Any]:
    from hushtune.zo.estimators import Move

    return [Move(number, 0.1) for number in range(count)]


def test_all_rows_of_a_user_are_protected_together(tiny, tmp_path: Path, monkeypatch):
    folder = tiny("gpt2")
    seen = seen_inside(monkeypatch)
    result = trainer(
        causal(folder),
        tmp_path,
        documents(),
        unit="user_id",
        batch=20.0,
        max_steps=2,
        data_collator=seq2seq_collator(folder),
    ).train()
    assert result.guarantee["unit"] == "user_id"
    assert result.guarantee["population"] == 20
    for slopes, units in seen:
        assert np.bincount(units).tolist() == [3] * 20  # everybody, since the batch is everybody
        assert slopes.shape == (60, 4)


def test_a_row_without_its_user_is_refused(tiny, tmp_path: Path):
    rows = documents()
    rows[7]["user_id"] = None
    tuning = trainer(
        causal(tiny("gpt2")),
        tmp_path,
        rows,
        unit="user_id",
        data_collator=seq2seq_collator(tiny("gpt2")),
    )
    with pytest.raises(DataError, match="train_dataset, row 8: user_id is null or empty"):
        tuning.train()
    assert not (tmp_path / "ledger.jsonl").exists()


@pytest.mark.parametrize("make", [list, datasets.Dataset.from_list])
def test_a_user_is_one_unit_however_the_name_is_spelled(make, tiny, tmp_path: Path):
    rows = documents()
    for place, row in enumerate(rows):
        row["user_id"] = f" u{place % 20}" if place % 3 else f"u{place % 20} "
    folder = tiny("gpt2")
    tuning = trainer(
        causal(folder),
        tmp_path,
        make(rows),
        unit="user_id",
        data_collator=seq2seq_collator(folder),
    )
    assert tuning.train().guarantee["population"] == 20


SIXTEEN = {
    "encoder-decoder": ("t5", "AutoModelForSeq2SeqLM", "completion"),
    "masked": ("bert", "AutoModelForMaskedLM", "examples"),
    "causal": ("gpt2", "AutoModelForCausalLM", "language-modelling"),
}


@pytest.mark.parametrize("kind", SIXTEEN)
def test_in_16_bits_labels_are_not_taken_to_stand_one_position_off(kind, tiny, tmp_path: Path):
    """Labels at random, many of them: their mean loss hardly depends on where they stand."""
    family, name, learned = SIXTEEN[kind]
    folder = tiny(family)
    model = getattr(transformers, name).from_pretrained(folder, dtype=torch.bfloat16)
    collator = seq2seq_collator(folder)
    trainer(model, tmp_path, documents(), data_collator=collator, max_steps=1).train()
    header = ledgers.read(tmp_path / "ledger.jsonl").header
    assert header["learned"] == learned


def test_a_head_that_reads_padding_is_refused(tiny, tmp_path: Path):
    """A causal model's head takes the last token; behind a prompt it counts columns wrongly."""
    model = classifier(tiny("gpt2"), pad_token_id=1)
    tuned = peft.get_peft_model(
        model, peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
    )
    tuning = trainer(tuned, tmp_path, labelled(), processing_class=tokenizer(tiny("gpt2")))
    with pytest.raises(ConfigError, match="changes with the padding behind the row"):
        tuning.train()
    assert not (tmp_path / "ledger.jsonl").exists()


def test_the_number_of_units_may_be_one_that_is_published(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    options: dict[str, Any] = {"data_collator": seq2seq_collator(folder)}
    result = trainer(causal(folder), tmp_path, documents(), population=50, **options).train()
    assert result.guarantee["population"] == 50
    assert result.guarantee["sampling_probability"] == pytest.approx(12 / 50)
    assert "given by the user" in " ".join(result.guarantee["exclusions"])


def test_runs_on_the_same_data_are_added_up(tiny, tmp_path: Path):
    from hushtune.privacy import registry

    registry.create(tmp_path / "registry.jsonl")
    folder = tiny("gpt2")
    for run in ("one", "two"):
        trainer(
            causal(folder),
            tmp_path / run,
            documents(),
            data_collator=seq2seq_collator(folder),
            registry=str(tmp_path / "registry.jsonl"),
            identity="notes",
        ).train()
    entries = registry.read(tmp_path / "registry.jsonl").entries
    assert [entry.data for entry in entries] == ["notes", "notes"]
    assert [Path(entry.where).name for entry in entries] == ["one", "two"]


def own_losses(model: Any, rows: list[dict[str, Any]], collator: Any) -> np.ndarray:
    """The loss that the model itself computes, of each row alone."""
    model.eval()
    found = []
    with torch.no_grad():
        for row in rows:
            taken = {key: value for key, value in row.items() if key != "user_id"}
            found.append(float(model(**collator([taken])).loss))
    return np.array(found)


def masked_rows() -> list[dict[str, Any]]:
    rows = documents()
    for row in rows:
        ids = row["input_ids"]
        row["labels"] = [ids[0], *[-100] * (len(ids) - 2), ids[-1]]
        row["input_ids"] = [4, *ids[1:-1], 4]
    return rows


def answers() -> list[dict[str, Any]]:
    rows = documents()
    for row, own in zip(rows, texts(60, seed=9, most=12), strict=True):
        row["labels"] = own
    return rows


def numbers() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [{**row, "label": float(draw.normal())} for row in labelled()]


def bits() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [
        {**attended(row["input_ids"]), "labels": draw.integers(0, 2, 3).astype(float).tolist()}
        for row in labelled()
    ]


def tagged() -> list[dict[str, Any]]:
    rows = documents()
    for row in rows:
        row["labels"] = [token % 5 if token % 7 else -100 for token in row["input_ids"]]
    return rows


def token_classifier(folder: str) -> Any:
    torch.manual_seed(3)
    return transformers.AutoModelForTokenClassification.from_pretrained(folder, num_labels=5)


def auto(name: str) -> Any:
    return lambda folder: getattr(transformers, name).from_pretrained(folder)


KINDS: dict[str, tuple[str, Any, Any, Any]] = {
    "causal": ("gpt2", causal, documents, "seq2seq"),
    "causal with attention to a window": ("mistral", causal, documents, "seq2seq"),
    "masked": ("bert", auto("AutoModelForMaskedLM"), masked_rows, "seq2seq"),
    "encoder-decoder": ("t5", auto("AutoModelForSeq2SeqLM"), answers, "seq2seq"),
    "labels": ("bert", classifier, labelled, "pad"),
    "labels of a causal model": (
        "opt",
        lambda folder: classifier(folder, pad_token_id=1),
        labelled,
        "pad",
    ),
    "a number": ("bert", lambda f: classifier(f, num_labels=1), numbers, "pad"),
    "several labels": (
        "bert",
        lambda f: classifier(f, num_labels=3, problem_type="multi_label_classification"),
        bits,
        "pad",
    ),
    "tokens' labels": ("bert", token_classifier, tagged, "tokens"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learned_is_the_model_s_own_loss_of_each_row(kind, tiny, tmp_path, monkeypatch):
    family, load, make_rows, collates = KINDS[kind]
    folder, rows = tiny(family), make_rows()
    words = tokenizer(folder)
    collator = {
        "seq2seq": transformers.DataCollatorForSeq2Seq,
        "pad": transformers.DataCollatorWithPadding,
        "tokens": transformers.DataCollatorForTokenClassification,
    }[collates](words)
    seen = seen_inside(monkeypatch)
    model, moved, start = load(folder), load(folder), load(folder)
    result = trainer(
        model,
        tmp_path,
        rows,
        processing_class=words,
        data_collator=collator,
        max_steps=1,
        batch=60.0,
        directions=2,
        estimator="two-sided",
        perturbation_scale=1e-2,
    ).train()
    core.replay(start, tmp_path / "ledger.jsonl")
    assert same(model, start)
    header = ledgers.read(tmp_path / "ledger.jsonl").header
    [(slopes, _)] = seen
    from hushtune.probe import make_directions

    names = set(header["moving"])
    moving = {name: each for name, each in moved.named_parameters() if name in names}
    directions = make_directions(42, moving, "rademacher")
    at = []
    for side in (1, -1):
        fresh = load(folder)
        with torch.no_grad():
            for name, parameter in fresh.named_parameters():
                if name in names:
                    directions.perturbed(
                        name, parameter, charge=0, direction=1, scale=side * 1e-2, out=parameter
                    )
        at.append(own_losses(fresh, rows, collator))
    expected = (at[0] - at[1]) / 2e-2
    np.testing.assert_allclose(slopes[:, 1], expected, rtol=2e-2, atol=2e-3)
    assert result.global_step == 1


def test_a_given_loss_is_learned(tiny, tmp_path: Path, monkeypatch):
    seen = seen_inside(monkeypatch)
    folder = tiny("bert")

    def doubled(outputs: Any, labels: Any) -> torch.Tensor:
        return 2 * functional.cross_entropy(outputs.logits, labels, reduction="none")

    options: dict[str, Any] = {"processing_class": tokenizer(folder), "batch": 60.0, "max_steps": 1}
    options |= {"perturbation_scale": 1e-3, "directions": 2}
    trainer(classifier(folder), tmp_path / "own", labelled(), **options).train()
    trainer(
        classifier(folder), tmp_path / "given", labelled(), compute_loss_func=doubled, **options
    ).train()
    np.testing.assert_allclose(seen[1][0], 2 * seen[0][0], rtol=2e-2, atol=5e-3)


def reduced(outputs: Any, labels: Any) -> torch.Tensor:
    return functional.cross_entropy(outputs.logits, labels)


def spread(outputs: Any, labels: Any) -> torch.Tensor:
    return reduced(outputs, labels).expand(len(labels))


def centred(outputs: Any, labels: Any) -> torch.Tensor:
    each = functional.cross_entropy(outputs.logits, labels, reduction="none")
    return each - each.mean()


@pytest.mark.parametrize("function", [reduced, spread, centred])
def test_a_given_loss_that_is_not_of_each_row_is_refused(function, tiny, tmp_path: Path):
    tuning = trainer(
        classifier(tiny("bert")),
        tmp_path,
        labelled(),
        compute_loss_func=function,
        processing_class=tokenizer(tiny("bert")),
    )
    with pytest.raises(ConfigError, match=r"^compute_loss_func: .*one loss per row"):
        tuning.train()
    assert not (tmp_path / "ledger.jsonl").exists()


def test_chance_in_a_given_loss_is_refused(tiny, tmp_path: Path):
    def noisy(outputs: Any, labels: Any) -> torch.Tensor:
        each = functional.cross_entropy(outputs.logits, labels, reduction="none")
        return each + 1e-5 * torch.rand(len(labels))

    tuning = trainer(
        classifier(tiny("bert")),
        tmp_path,
        labelled(),
        compute_loss_func=noisy,
        processing_class=tokenizer(tiny("bert")),
        perturbation_scale=1e-3,
    )
    with pytest.raises(ProbeError, match="without memory and without chance"):
        tuning.train()
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_model_with_a_loss_of_its_own_kind_wants_a_function(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    model = causal(folder)
    model.loss_function = lambda logits, labels, **_: logits.sum()
    tuning = trainer(model, tmp_path, documents(), data_collator=seq2seq_collator(folder))
    with pytest.raises(ConfigError, match="give a compute_loss_func"):
        tuning.train()


def test_public_rows_are_used_where_they_are_given(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    options: dict[str, Any] = {"data_collator": seq2seq_collator(folder)}
    slopes = []
    for name, public in (("made up", None), ("given", documents(30, seed=5))):
        model = causal(folder)
        trainer(model, tmp_path / name, documents(), public_dataset=public, **options).train()
        header = ledgers.read(tmp_path / name / "ledger.jsonl").header
        slopes.append(header["settings"]["typical_slope"])
    assert slopes[0] != slopes[1]
    few = trainer(
        causal(folder), tmp_path / "few", documents(), public_dataset=documents(2), **options
    )
    with pytest.raises(ValueError, match="at least 3 public"):
        few.train()


def test_what_is_made_up_is_the_same_whatever_the_private_rows_are(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    headers = []
    for seed in (0, 1):
        rows = documents(60, seed=seed)
        trainer(
            causal(folder), tmp_path / str(seed), rows, data_collator=seq2seq_collator(folder)
        ).train()
        headers.append(ledgers.read(tmp_path / str(seed) / "ledger.jsonl").header)
    for key in ("settings", "plan", "micro_batches", "moving", "learned"):
        assert headers[0][key] == headers[1][key]
