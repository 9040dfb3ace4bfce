"""Every kind of task through the command line: train, replay, evaluate, ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from commands import command
from kinds import FLAGS, write

import hushtune
from hushtune.cli import main
from hushtune.config import ADAPTERS, ConfigError
from hushtune.run import replay
from hushtune.tasks.texts import Choices, Pair

CASES = [
    ("completion", "opt", "lora", ()),
    ("completion", "gpt2", "full", ("--method.name", "dp-zo", "--method.directions", "1")),
    ("completion", "t5", "lora", ()),
    ("multiple-choice", "llama", "last-1", ("--privacy.mechanism", "laplace")),
    ("multiple-choice", "t5", "full", ()),
    ("completion", "gpt2", "prompt", ()),
    ("completion", "llama", "prefix", ()),
    ("completion", "t5", "prompt", ()),
    ("completion", "t5", "prefix", ()),
    ("multiple-choice", "opt", "prompt", ()),
    ("multiple-choice", "t5", "prefix", ()),
    ("chat", "qwen3", "prefix", ()),
    ("language-modelling", "gemma2", "prompt", ()),
    ("pairs", "bert", "prompt", ()),
    ("pairs", "bert", "prompt", ("--task.readout", "head")),
    ("pairs", "t5", "prompt", ()),
    ("chat", "qwen3", "lora", ("--data.max-length", "64")),
    ("language-modelling", "opt", "full", ("--model.dtype", "bfloat16")),
    ("language-modelling", "llama", "head", ()),
    ("pairs", "bert", "full", ()),
    ("pairs", "bert", "lora", ("--task.readout", "head")),
    ("pairs", "opt", "lora", ()),
    ("pairs", "t5", "full", ()),
    ("pairs", "encoder", "head", ()),
]

METRICS = {
    "completion": {"f1", "exact_match"},
    "multiple-choice": {"accuracy"},
    "chat": {"perplexity"},
    "language-modelling": {"perplexity"},
    "pairs": {"accuracy"},
}


def base_model(kind: str, family: str, tiny: Any, folder: Path) -> str:
    return tiny_models.with_chat(tiny(family), folder) if kind == "chat" else tiny(family)


@pytest.mark.parametrize(("kind", "family", "tune", "settings"), CASES)
def test_a_kind_of_task_trains_replays_evaluates_and_answers(
    kind, family, tune, settings, tiny, tmp_path: Path, capsys
):
    run, train = tmp_path / "run", write(kind, tmp_path / "train.jsonl")
    public = write(kind, tmp_path / "public.jsonl", rows=5)
    named = "classification" if kind == "pairs" else kind
    length = () if "--data.max-length" in settings else ("--data.max-length", "32")
    directions = () if "--method.directions" in settings else ("--method.directions", "2")
    summary = command(
        capsys, "train", "--model.name", base_model(kind, family, tiny, tmp_path / "base"),
        "--model.tune", tune, "--data.train", str(train), "--data.eval", str(public),
        "--task.kind", named, "--method.steps", "3", "--method.batch", "6", "--eval-every", "2",
        "--privacy.epsilon", "4", "--output", str(run), *directions, *length,
        *FLAGS.get(kind, ()), *settings,
    )  # fmt: skip
    measured = {name for name in summary if name.startswith("private_")}
    assert measured == {f"private_{name}" for name in METRICS[kind]}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 3]
    assert all(line.keys() == {"step", *METRICS[kind]} for line in lines)

    again = tmp_path / "again"
    replay(run / "ledger.jsonl", model=None, out=again)
    saved = "adapter" if tune in ADAPTERS else "model"
    for path in (run / saved).rglob("*.safetensors"):
        assert path.read_bytes() == (again / path.relative_to(run)).read_bytes()

    found = command(capsys, "eval", str(run), "--data", str(public))
    assert {name: found[name] for name in METRICS[kind]} == {
        name: summary[f"private_{name}"] for name in METRICS[kind]
    }
    model = hushtune.load(run)
    if kind in ("chat", "language-modelling"):
        with pytest.raises(ConfigError, match="use the model to generate"):
            model.predict(["a good film"])
    elif kind == "completion":
        assert all(isinstance(answer, str) for answer in model.predict(["a good film", "bad"]))
    elif kind == "multiple-choice":
        assert model.predict([Choices("so", ("great", "bad"))])[0] in ("great", "bad")
    else:
        assert model.predict([Pair("a good film", "so bad")])[0] in ("no", "yes")


def test_what_is_said_on_the_terminal_names_the_metric(tiny, tmp_path: Path, capsys):
    path = str(write("language-modelling", tmp_path / "data.jsonl"))
    public = str(write("language-modelling", tmp_path / "public.jsonl", rows=4))
    with pytest.raises(SystemExit):
        main(["train", "--model.name", tiny("opt"), "--data.train", path, "--data.eval", public,
              "--task.kind", "language-modelling", "--data.max-length", "32", "--method.steps", "2",
              "--method.directions", "2", "--method.batch", "6", "--privacy.epsilon", "4",
              "--output", str(tmp_path / "run")])  # fmt: skip
    assert "private perplexity" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["eval", str(tmp_path / "run"), "--data", public])
    assert "perplexity" in capsys.readouterr().out


def test_a_text_is_learned_by_forward_passes_alone(tiny, tmp_path: Path, capsys):
    path = str(write("language-modelling", tmp_path / "data.jsonl"))
    public = str(write("language-modelling", tmp_path / "public.jsonl"))
    summary = command(
        capsys, "train", "--model.name", tiny("llama"), "--model.tune", "full",
        "--data.train", path, "--data.eval", public, "--task.kind", "language-modelling",
        "--data.max-length", "32", "--method.name", "mezo", "--privacy.mechanism", "none",
        "--method.steps", "40", "--method.directions", "8", "--method.batch", "16",
        "--method.learning-rate", "0.3", "--output", str(tmp_path / "run"),
    )  # fmt: skip
    assert summary["non_private_perplexity"] < 0.8 * summary["zero_shot_perplexity"]
