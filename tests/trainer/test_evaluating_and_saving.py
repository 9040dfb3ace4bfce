"""Evaluating on public rows, saving for others to load, and uploading."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional
from training import (
    causal,
    classifier,
    documents,
    labelled,
    same,
    seq2seq_collator,
    tokenizer,
    trainer,
    with_lora,
)

from hushtune.config import ConfigError
from hushtune.guarantee import rounded_up


def accuracy(found: Any) -> dict[str, float]:
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def test_metrics_are_those_of_transformers_own_trainer(tiny, tmp_path: Path):
    folder, public = tiny("bert"), labelled(30, seed=8)
    words = tokenizer(folder)
    tuning = trainer(
        classifier(folder),
        tmp_path,
        labelled(),
        eval_dataset=public,
        processing_class=words,
        compute_metrics=accuracy,
    )
    theirs = transformers.Trainer(
        classifier(folder),
        transformers.TrainingArguments(
            output_dir=str(tmp_path / "theirs"),
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        processing_class=words,
        compute_metrics=accuracy,
    )
    expected = theirs.evaluate(public)  # type: ignore[arg-type]
    found = tuning.evaluate()
    assert found.keys() == {"eval_loss", "eval_accuracy"}
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-6)
    predicted = tuning.predict(public)
    assert predicted.predictions.shape == (30, 2)
    assert predicted.metrics["test_accuracy"] == found["eval_accuracy"]
    assert np.array_equal(predicted.label_ids, [row["label"] for row in public])


def test_a_given_loss_is_that_of_training_where_a_decoder_reads_its_own_text(tiny, tmp_path: Path):
    folder = tiny("t5")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)

    def per_row(outputs: Any, labels: Any) -> torch.Tensor:
        each = functional.cross_entropy(
            outputs.logits.transpose(1, 2), labels, reduction="none", ignore_index=-100
        )
        return each.sum(dim=1) / (labels >= 0).sum(dim=1)

    options: dict[str, Any] = {"data_collator": seq2seq_collator(folder)}
    options |= {"eval_dataset": documents(8, seed=7), "per_device_eval_batch_size": 1}
    own = trainer(model, tmp_path / "own", documents(), **options).evaluate()
    given = trainer(
        model, tmp_path / "given", documents(), compute_loss_func=per_row, **options
    ).evaluate()
    assert given["eval_loss"] == pytest.approx(own["eval_loss"], rel=1e-5)


def test_several_public_sets_are_evaluated_by_name(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    sets = {"one": documents(6, seed=3), "two": documents(6, seed=4)}
    tuning = trainer(
        causal(folder),
        tmp_path,
        documents(),
        eval_dataset=sets,
        data_collator=seq2seq_collator(folder),
    )
    assert tuning.evaluate().keys() == {"eval_one_loss", "eval_two_loss"}


def test_private_rows_are_not_evaluated_on(tiny, tmp_path: Path):
    folder, rows = tiny("gpt2"), documents()
    private = datasets.Dataset.from_list(rows)
    options: dict[str, Any] = {"data_collator": seq2seq_collator(folder)}
    message = "the private training data or a part of it; it must be public"
    for train, public in (
        (rows, rows),
        (rows, rows[:5]),
        (rows, {"held out": rows[50:]}),
        (private, private),
        (private, copy.copy(private)),
    ):
        with pytest.raises(ConfigError, match=rf"^eval_dataset: is not accepted.*{message}"):
            trainer(causal(folder), tmp_path, train, eval_dataset=public, **options)
    with pytest.raises(ConfigError, match=r"^public_dataset: is not accepted"):
        trainer(causal(folder), tmp_path, rows, public_dataset=rows[:9], **options)
    tuning = trainer(causal(folder), tmp_path, rows, **options)
    with pytest.raises(ConfigError, match=r"^eval_dataset: is not accepted"):
        tuning.evaluate(rows)
    with pytest.raises(ConfigError, match=r"^test_dataset: is not accepted"):
        tuning.predict(rows[3:4])
    with pytest.raises(ConfigError, match="eval_dataset: is needed to evaluate"):
        tuning.evaluate()
    with pytest.raises(ConfigError, match="eval_dataset: is needed with eval_strategy steps"):
        trainer(causal(folder), tmp_path, rows, eval_strategy="steps", eval_steps=1, **options)


@pytest.fixture
def tuned(tiny, tmp_path: Path) -> Any:
    folder = tiny("gpt2")
    tuning = trainer(
        causal(folder),
        tmp_path / "out",
        documents(),
        processing_class=tokenizer(folder),
        data_collator=seq2seq_collator(folder),
    )
    return tuning, tuning.train()


def test_what_is_saved_loads_and_says_what_it_is(tuned, tmp_path: Path):
    tuning, result = tuned
    for folder in (tmp_path / "out", tmp_path / "elsewhere"):
        tuning.save_model(None if folder.name == "out" else str(folder))
        assert same(tuning.model, causal(str(folder)))
        assert transformers.AutoTokenizer.from_pretrained(folder)("good").input_ids
        assert json.loads((folder / "privacy.json").read_text()) == result.guarantee
        ledger = (folder / "ledger.jsonl").read_bytes()
        assert ledger == (tmp_path / "out" / "ledger.jsonl").read_bytes()
        card = huggingface_hub.ModelCard.load(folder / "README.md")
        assert card.data.tags == ["hushtune", "differential-privacy"]
        assert card.data.pipeline_tag == "text-generation"
        assert f"ε = {rounded_up(result.guarantee['epsilon'])}" in card.text
        assert "hushtune.core.replay" in card.text
        assert str(tmp_path) not in card.text
        for sentence in result.guarantee["exclusions"]:
            assert sentence in card.text


def test_the_ledger_of_another_run_is_not_written_over(tuned, tiny, tmp_path: Path):
    (tmp_path / "other").mkdir()
    there, folder = tmp_path / "other" / "ledger.jsonl", tiny("gpt2")
    collator = seq2seq_collator(folder)
    trainer(causal(folder), there.parent, documents(), data_collator=collator).train()
    kept = there.read_bytes()
    untuned = trainer(causal(folder), tmp_path / "out", documents(), data_collator=collator)
    for tuning in (tuned[0], untuned):
        with pytest.raises(ConfigError, match="other holds the ledger of another run"):
            tuning.save_model(str(there.parent))
    assert [path.name for path in there.parent.iterdir()] == ["ledger.jsonl"]
    assert there.read_bytes() == kept


def test_a_model_that_was_not_tuned_is_saved_without_a_guarantee(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    trainer(causal(folder), tmp_path, documents()).save_model()
    assert same(causal(folder), causal(str(tmp_path)))
    assert not (tmp_path / "privacy.json").exists()
    assert not (tmp_path / "README.md").exists()


def test_what_could_not_be_saved_is_refused_before_anything_is_spent(tiny, tmp_path: Path):
    folder = tiny("gpt2")
    with pytest.raises(ConfigError, match="is the base model; choose another folder"):
        trainer(causal(folder), Path(folder), documents())
    with pytest.raises(ConfigError, match="model: Linear is not accepted"):
        trainer(torch.nn.Linear(2, 2), tmp_path, documents())
    adapted = with_lora(causal(folder), target_modules=["c_attn"], fan_in_fan_out=True)
    adapted.base_model.model.transformer.ln_f.weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"ln_f\.weight would move, but is no part"):
        trainer(adapted, tmp_path, documents())


class Hub:
    """What an upload meets in place of the hub."""

    uploads: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, token: str | None = None) -> None:
        self._token = token

    def create_repo(self, name: str, *, private: bool | None, exist_ok: bool) -> Any:
        assert exist_ok
        self.uploads.append({"token": self._token, "created": name, "private": private})
        return SimpleNamespace(repo_id=f"me/{name}" if "/" not in name else name)

    def upload_folder(self, *, repo_id: str, folder_path: str, **more: Any) -> str:
        files = {path.name for path in Path(folder_path).iterdir()}
        loaded = causal(folder_path)
        self.uploads.append({"to": repo_id, "files": files, "model": loaded, **more})
        return "done"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(Hub, "uploads", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub.uploads


def test_an_upload_is_what_is_saved_and_nothing_that_lies_beside_it(tuned, tmp_path, hub):
    tuning, _ = tuned
    (tmp_path / "out" / "private.jsonl").write_text("a person's text")
    assert tuning.push_to_hub("first", revision="draft") == "done"
    created, upload = hub
    assert created == {"token": None, "created": "out", "private": None}
    assert upload["to"] == "me/out"
    assert upload["commit_message"] == "first"
    assert upload["revision"] == "draft"
    assert same(upload["model"], tuning.model)
    expected = {"model.safetensors", "config.json", "tokenizer.json", "README.md"}
    assert expected | {"privacy.json", "ledger.jsonl"} <= upload["files"]
    assert "private.jsonl" not in upload["files"]


def test_training_ends_with_an_upload_where_that_is_asked_for(tiny, tmp_path: Path, hub):
    folder = tiny("gpt2")
    tuning = trainer(
        causal(folder),
        tmp_path,
        documents(),
        data_collator=seq2seq_collator(folder),
        push_to_hub=True,
        hub_model_id="us/notes",
        hub_token="hf_secret",
        hub_private_repo=True,
    )
    assert not hub
    tuning.train()
    created, upload = hub
    assert created == {"token": "hf_secret", "created": "us/notes", "private": True}
    assert upload["to"] == "us/notes"
    assert same(causal(str(tmp_path)), tuning.model)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"hf_secret" not in path.read_bytes()
