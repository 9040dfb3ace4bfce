"""Pairs read by a sentence encoder that is told which text a token is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from commands import command
from kinds import FLAGS, write

from hushtune.cli import main
from hushtune.config import DataConfig, ModelConfig, TaskConfig
from hushtune.models.load import load_model
from hushtune.tasks.batches import Shape
from hushtune.tasks.data import LabelledText
from hushtune.tasks.task import TextTask
from hushtune.tasks.texts import Pair


def test_its_features_are_those_that_the_encoder_gives_with_types(tiny, tmp_path: Path):
    folder = tiny_models.with_types(tiny("encoder"), tmp_path / "typed")
    loaded = load_model(
        ModelConfig(folder),
        TaskConfig(labels={"no": "terrible", "yes": "great"}),
        DataConfig(second="other", max_length=32),
        seed=0,
    )
    pair = Pair("a very good film", "so bad")
    task = TextTask(loaded.readout, LabelledText.unlabelled([pair]), [Shape(1, 32)])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(pair.first, pair.second, return_tensors="pt")
    assert inputs["token_type_ids"].sum() > 0
    with torch.inference_mode():
        hidden = transformers.AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
        expected = torch.nn.functional.normalize(hidden.mean(dim=1), dim=-1)
        features = task.features_of(np.array([0]))
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-6)
        ((_, batch),) = task.micro_batches(np.array([0]))
        scores, _ = task.scores(batch)
        vectors = loaded.model.label_vectors  # type: ignore[attr-defined]
        torch.testing.assert_close(scores, 10 * features @ vectors.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tune", ["head", "lora", "full"])
def test_they_are_learned(tune, tiny, tmp_path: Path, capsys):
    folder = tiny_models.with_types(tiny("encoder"), tmp_path / "typed")
    data = write("pairs", tmp_path / "train.jsonl")
    public = write("pairs", tmp_path / "public.jsonl", rows=5)
    summary = command(
        capsys, "train", "--model.name", folder, "--model.tune", tune, "--data.train", str(data),
        "--data.eval", str(public), "--data.max-length", "32", "--method.steps", "2",
        "--method.directions", "2", "--method.batch", "6", "--privacy.epsilon", "4",
        "--output", str(tmp_path / "run"), *FLAGS["pairs"],
    )  # fmt: skip
    found = command(capsys, "eval", str(tmp_path / "run"), "--data", str(public))
    assert found["accuracy"] == summary["private_accuracy"]


@pytest.mark.parametrize("tune", ["prompt", "prefix"])
def test_virtual_tokens_are_refused_since_types_would_be_left_out(
    tune, tiny, tmp_path: Path, capsys
):
    folder = tiny_models.with_types(tiny("encoder"), tmp_path / "typed")
    data = write("pairs", tmp_path / "train.jsonl")
    with pytest.raises(SystemExit):
        main(["train", "--model.name", folder, "--model.tune", tune, "--data.train", str(data),
              "--model.virtual-tokens", "2", "--data.max-length", "32", "--privacy.epsilon", "4",
              "--output", str(tmp_path / "run"), *FLAGS["pairs"]])  # fmt: skip
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hushtune train: model.tune: {tune} is not accepted for a BertModel")
    assert "Token type ids are not supported" in line
