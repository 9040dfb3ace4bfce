"""DP-SGD as comparison: gradients, clip and noise, the run folder, refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import first_order
import kinds
import numpy as np
import pytest
import torch
from commands import command
from refusals import Refusal

import hushtune
from hushtune.cli import main
from hushtune.comparison import dp_sgd, gradients
from hushtune.comparison.settings import LABEL, FirstOrderPlan
from hushtune.config import load as load_config
from hushtune.loading import load_moving
from hushtune.models.restore import TunedModel
from hushtune.privacy import accounting, registry
from hushtune.tasks.data import LabelledText


@pytest.fixture
def arguments(run_arguments) -> list[str]:
    return [*run_arguments, *first_order.FLAGS]


@pytest.fixture
def refusal(arguments, tmp_path, capsys) -> Refusal:
    return Refusal(arguments, tmp_path, capsys)


@pytest.fixture
def train(arguments, tmp_path, capsys):
    """Trains in a folder of the given name; returns the folder and what the terminal showed."""

    def run(name: str, *flags: object) -> tuple[Path, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["train", *arguments, "--output", str(tmp_path / name), *map(str, flags)])
        shown = capsys.readouterr()
        assert not exit_.value.code, shown.err
        return tmp_path / name, " ".join(shown.out.split())

    return run


def test_gradients_that_are_not_finite_count_as_zero():
    some = torch.tensor([[3.0, 4.0], [float("nan"), 1.0], [float("inf"), 0.0], [0.0, 0.0]])
    total = gradients.sum_of_clipped(some, 1.0)
    assert total.tolist() == pytest.approx([0.6, 0.8])


def plan_of(**changed) -> FirstOrderPlan:
    values = {
        "population": 100,
        "sampling_probability": 0.25,
        "steps": 1,
        "clip_norm": 2.0,
        "noise_multiplier": 3.0,
        "delta": 1e-5,
        "adjacency": "add-or-remove-one",
        "optimizer": "sgd",
        "learning_rate": 1.0,
        "schedule": "constant",
    }
    return FirstOrderPlan(**values | changed)


class ConstantSums:
    """Stands in for gradients: the same sum in every step, or a failure."""

    def __init__(self, total: torch.Tensor, failure: Exception | None = None) -> None:
        self.total = total
        self.failure = failure
        self.sizes: list[int] = []

    def clipped_sum(self, rows: np.ndarray, clip_norm: float) -> list[torch.Tensor]:
        self.sizes.append(len(rows))
        if self.failure is not None:
            raise self.failure
        return [self.total]


def test_a_step_adds_noise_of_multiplier_times_clip_and_divides_by_the_expected_number():
    moved = torch.nn.Parameter(torch.zeros(200_000))
    sums = ConstantSums(torch.full_like(moved, 50.0))
    dp_sgd.train([moved], sums, plan_of(), units=100, after_step=lambda _: None)
    # 50 / (0.25 · 100), and 3 · 2 / (0.25 · 100); the bounds are nine standard errors away.
    ended = moved.detach()
    assert float(ended.mean()) == pytest.approx(-2.0, abs=0.005)
    assert float(ended.std()) == pytest.approx(0.24, abs=0.0035)
    steps = plan_of(steps=2000, noise_multiplier=1e-6)
    small = torch.nn.Parameter(torch.zeros(1))
    sums = ConstantSums(torch.zeros(1))
    dp_sgd.train([small], sums, steps, units=100, after_step=lambda _: None)
    # Binomial(100, 1/4): standard deviation 4.33, of which nobody fixes the size.
    assert np.mean(sums.sizes) == pytest.approx(25.0, abs=0.9)
    assert np.std(sums.sizes) == pytest.approx(4.33, abs=0.6)


def test_noise_is_new_in_every_run():
    ends = []
    for _ in range(2):
        moved = torch.nn.Parameter(torch.zeros(10))
        torch.manual_seed(0)
        sums = ConstantSums(torch.zeros(10))
        dp_sgd.train([moved], sums, plan_of(), units=3, after_step=lambda _: None)
        ends.append(moved.detach())
    assert not torch.equal(*ends)


def test_empty_batches_are_steps_like_all_others():
    moved = torch.nn.Parameter(torch.zeros(10))
    seen: list[int] = []
    plan = plan_of(steps=3, sampling_probability=2.0**-32)
    sums = ConstantSums(torch.zeros(10))
    dp_sgd.train([moved], sums, plan, units=1, after_step=seen.append)
    assert sums.sizes == [0, 0, 0]
    assert seen == [1, 2, 3]
    assert moved.all()


def test_a_failure_says_nothing_of_what_it_met():
    moved = torch.nn.Parameter(torch.zeros(1))
    sums = ConstantSums(moved, RuntimeError("ann owes 7"))
    with pytest.raises(dp_sgd.ComparisonFailed, match="RuntimeError") as failed:
        dp_sgd.train([moved], sums, plan_of(), units=3, after_step=lambda _: None)
    assert "ann" not in str(failed.value)
    assert failed.value.__context__ is None


def test_the_learning_rate_falls_to_zero_where_asked():
    plan = plan_of(steps=4, schedule="linear", learning_rate=2.0)
    assert [dp_sgd.learning_rate(plan, step) for step in range(4)] == [2.0, 1.5, 1.0, 0.5]


def test_a_run_says_what_it_is_and_claims_no_more(train, reviews, tmp_path):
    test = tmp_path / "test.jsonl"
    test.write_text(Path(reviews).read_text())
    run, shown = train("first", "--data.eval", test, "--eval-every", 2)
    assert LABEL.removeprefix("comparison: ") in shown
    summary = json.loads((run / "summary.json").read_text())
    claim = json.loads((run / "privacy.json").read_text())
    assert summary["comparison"] == claim["comparison"] == LABEL
    assert not list(run.rglob("ledger*"))
    assert "private" not in claim
    assert 0 <= summary["private_accuracy"] <= 1
    assert (summary["steps"], summary["ledger_head"]) == (5, None)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 2, 4, 5]
    terms = ("noise_multiplier", "sampling_probability", "steps", "delta", "adjacency")
    again = accounting.epsilon(mechanism="gaussian", **{name: claim[name] for name in terms})
    assert 3.9 < again == claim["epsilon"] == summary["epsilon"] <= 4
    assert (run / "model" / "label_vectors.safetensors").exists()


def test_the_public_seed_fixes_neither_sample_nor_noise(train):
    hashes = [
        json.loads((train(name, "--seed", 3)[0] / "summary.json").read_text())["moved_sha256"]
        for name in ("one", "two")
    ]
    assert hashes[0] != hashes[1]


def test_adapters_are_trained_and_saved_for_peft(train, encoder_folder):
    pytest.importorskip("opacus")
    peft = pytest.importorskip("peft")
    from transformers import AutoModel

    run, _ = train("lora", "--model.tune", "lora")
    base = AutoModel.from_pretrained(encoder_folder)
    adapted = peft.PeftModel.from_pretrained(base, str(run / "adapter"))
    moved = [each for name, each in adapted.named_parameters() if ".lora_B." in name]
    assert moved
    assert all(each.any() for each in moved)


@pytest.mark.parametrize(
    ("kind", "family", "tune"),
    [
        ("completion", "gpt2", "full"),
        ("completion", "t5", "lora"),
        ("multiple-choice", "llama", "lora"),
        ("language-modelling", "llama", "full"),
    ],
)
def test_text_is_learned_by_gradients_too(kind, family, tune, tiny, tmp_path, capsys):
    data = str(kinds.write(kind, tmp_path / "train.jsonl"))
    public = str(kinds.write(kind, tmp_path / "public.jsonl", rows=3))
    summary = command(
        capsys, "train", "--model.name", tiny(family), "--model.tune", tune, "--data.train", data,
        "--data.eval", public, "--task.kind", kind, "--data.max-length", "48",
        "--method.name", "dp-sgd", "--method.steps", "2", "--method.batch", "6",
        "--privacy.epsilon", "8", "--output", str(tmp_path / "run"), *kinds.FLAGS.get(kind, ()),
    )  # fmt: skip
    assert summary["epsilon"] <= 8
    before, after = (
        {name: value for name, value in summary.items() if name.startswith(prefix)}
        for prefix in ("zero_shot", "private")
    )
    assert before
    assert all(value is not None for value in (before | after).values())


def test_a_registry_counts_a_run_once_by_its_epsilon(train, tmp_path):
    path = tmp_path / "registry.jsonl"
    registry.create(path)
    run, _ = train("run", "--privacy.registry", path, "--data.identity", "reviews")
    (entry,) = registry.read(path).entries
    claim = json.loads((run / "privacy.json").read_text())
    assert (entry.epsilon, entry.delta) == (claim["epsilon"], claim["delta"])
    assert (entry.data, entry.unit, entry.what) == ("reviews", "example", "training (dp-sgd)")


def test_a_folder_that_holds_a_run_is_refused(train, refusal, tmp_path):
    run, _ = train("run")
    before = (run / "summary.json").read_bytes()
    assert refusal().startswith(f"output: {tmp_path / 'run'} holds a run, and dp-sgd keeps no")
    assert (run / "summary.json").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--privacy.mechanism laplace",
            'privacy.mechanism: "laplace" is not accepted; it must be gaussian with method dp-sgd',
        ),
        ("--privacy.mechanism none", 'privacy.mechanism: "none" is not accepted; it must be none'),
        ("--data.unit user_id", 'data.unit: "user_id" is not accepted; it must be none with dp-sg'),
        ("--method.directions 2", "method.directions: 2 is not accepted; it must be 1 for dp-sgd"),
        (
            "--method.estimator two-sided",
            'method.estimator: "two-sided" is not accepted; it must be auto with dp-sgd: it has n',
        ),
        (
            "--method.update sgd --method.learning-rate 1",
            'method.update: "sgd" is not accepted; it must be left out with dp-sgd, which has met',
        ),
        (
            "--method.name dp-zo --method.optimizer sgd",
            'method.optimizer: "sgd" is not accepted; it must be auto, except with methods dp-sgd ',
        ),
        ("--method.batch 61", "method.batch: 61.0 is not accepted; it must be at most the number"),
        ("--privacy.registry no.jsonl --data.identity x", "no.jsonl: no such registry;"),
    ],
)
def test_what_a_comparison_cannot_do_is_refused_in_one_line(refusal, flags, message):
    assert refusal(*flags.split()).startswith(message)


def test_without_opacus_only_label_vectors_can_be_tuned(refusal, train, monkeypatch):
    for name in ("opacus", "opacus.grad_sample"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "hushtune.comparison.hooks", raising=False)
    line = refusal("--model.tune", "lora")
    assert line.startswith("method.name: dp-sgd needs the package opacus")
    assert "hushtune[comparison]" in line
    assert not (refusal.folder / "run").exists()
    train("run")


def shown_by(command: str, *arguments: object, capsys, code: int = 0) -> str:
    with pytest.raises(SystemExit) as exit_:
        main([command, *map(str, arguments)])
    shown = capsys.readouterr()
    assert (exit_.value.code or 0) == code, shown.err
    return shown.err if code else shown.out


def scores_of(model: TunedModel, texts: list[str]) -> np.ndarray:
    """Those of a first micro-batch."""
    task = model.task(LabelledText.unlabelled(texts))
    _, inputs = next(iter(task.micro_batches(np.arange(len(texts)))))
    with torch.inference_mode():
        return task.scores(inputs)[0].numpy()


@pytest.mark.parametrize("tune", ["head", "last-1", "lora"])
def test_a_run_can_be_evaluated_and_its_model_used(train, reviews, tmp_path, tune, capsys):
    if tune != "head":
        pytest.importorskip("opacus")
    test = tmp_path / "test.jsonl"
    test.write_text(Path(reviews).read_text())
    run, _ = train("run", "--data.eval", test, "--model.tune", tune, "--privacy.epsilon", 100)
    summary = json.loads((run / "summary.json").read_text())
    found = json.loads(shown_by("eval", run, "--data", test, "--json", capsys=capsys))
    assert found["accuracy"] == summary["private_accuracy"]
    assert found["comparison"] == LABEL
    words = " ".join(shown_by("eval", run, "--data", test, capsys=capsys).split())
    assert LABEL in words
    rows = [json.loads(line) for line in test.read_text().splitlines()]
    texts, tuned = [row["text"] for row in rows], hushtune.load(run)
    best = tuned.predict(texts)
    right = np.mean([one == row["label"] for one, row in zip(best, rows, strict=True)])
    assert right == summary["private_accuracy"]
    # It is not the base model, though by chance it may be right as often.
    config = load_config(run / "config.yaml")
    base = TunedModel(load_moving(config)[0].readout, config, tuned.shapes)
    assert not np.allclose(scores_of(tuned, texts), scores_of(base, texts))


def test_commands_that_need_a_ledger_say_that_a_comparison_has_none(train, tmp_path, capsys):
    run, _ = train("run")
    for name in ("privacy", "replay", "verify", "audit"):
        flags = ["--out", tmp_path / "again"] if name == "replay" else []
        line = shown_by(name, run, *flags, capsys=capsys, code=1)
        expected = f"hushtune {name}: {run} holds a comparison run (dp-sgd), no ledger.\n"
        assert line == expected
    assert not (tmp_path / "again").exists()


def test_a_run_that_was_interrupted_has_no_model_to_load(train, capsys):
    run, _ = train("run")
    (run / "privacy.json").unlink()
    line = shown_by("eval", run, "--data", "x.jsonl", capsys=capsys, code=1)
    assert "this run of dp-sgd is not complete" in line


def test_other_commands_refuse_a_comparison(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["plan", *arguments])
    assert exit_.value.code == 1
    assert "dp-sgd is for `hushtune train` alone" in capsys.readouterr().err
