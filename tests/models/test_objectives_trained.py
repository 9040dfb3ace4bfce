"""Training on scores of answers: accuracy, F1, exact match and one's own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import command
from kinds import FLAGS, write

from hushtune.cli import main
from hushtune.config import Config, from_values
from hushtune.privacy import ledger as ledgers
from hushtune.privacy.ledger import StepFailed
from hushtune.run import replay, train
from hushtune.session import Session, begin
from hushtune.tasks.data import LabelledText, read_labelled_text
from hushtune.tasks.readouts import ClassifyingReadOut, CompletionReadOut
from hushtune.zo.estimators import moves, slopes

OWN = "def score(answer, accepted):\n    return 2.0 if answer in accepted else -3.0\n"

CASES = [
    ("completion", "opt", "lora", "f1", ()),
    ("completion", "t5", "full", "exact-match", ("--privacy.mechanism", "laplace")),
    ("completion", "gpt2", "last-1", "own", ()),
    ("multiple-choice", "llama", "last-1", "accuracy", ()),
    ("multiple-choice", "qwen3", "lora", "accuracy", ()),
    ("pairs", "encoder", "head", "accuracy", ()),
    ("pairs", "bert", "lora", "own", ("--method.estimator", "one-sided")),
]


class Quiet:
    """A run's progress, unheard."""

    def started(self, session: Session, charges: int) -> None: ...
    def stepped(self, steps: int) -> None: ...
    def evaluated(self, name: str, metrics: Any) -> None: ...


@pytest.mark.parametrize(("kind", "family", "tune", "objective", "settings"), CASES)
def test_an_objective_is_trained_on_and_its_ledger_replays(
    kind, family, tune, objective, settings, tiny, tmp_path: Path, capsys
):
    run, data = tmp_path / "run", write(kind, tmp_path / "train.jsonl", rows=8)
    public = write(kind, tmp_path / "public.jsonl", rows=3)
    if objective == "own":
        (tmp_path / "score.py").write_text(OWN, encoding="utf-8")
        settings = (*settings, "--task.objective-range", "-3", "2")
    named = f"{tmp_path / 'score.py'}:score" if objective == "own" else objective
    flags = [
        "--model.name", tiny(family), "--model.tune", tune, "--data.train", str(data),
        "--data.eval", str(public), "--data.max-length", "32", "--method.steps", "2",
        "--method.directions", "2", "--method.batch", "4", "--privacy.epsilon", "8",
        "--task.kind", "classification" if kind == "pairs" else kind, "--output", str(run),
        *FLAGS.get(kind, ()), "--task.objective", named, *settings,
    ]  # fmt: skip
    if kind == "pairs":
        assert command(capsys, "plan", *flags)["slope_agreement"] is None
    command(capsys, "train", *flags)
    settled = ledgers.read(run / "ledger.jsonl").header["settings"]
    assert settled["estimator"] == ("one-sided" if "one-sided" in settings else "two-sided")
    bound = (5.0 if objective == "own" else 1.0) / 2 / settled["perturbation_scale"]
    assert 0 < settled["typical_slope"] <= bound
    guarantee = command(capsys, "privacy", str(run))
    assert any("scoring function" in each for each in guarantee["exclusions"]) == (
        objective == "own"
    )

    replay(run / "ledger.jsonl", model=None, out=tmp_path / "again")
    saved = "adapter" if tune == "lora" else "model"
    for path in (run / saved).rglob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(run)).read_bytes()


def configured(kind: str, model: str, data: Path, objective: str, **method: Any) -> Config:
    task: dict[str, Any] = {"kind": kind, "objective": objective}
    if kind == "classification":
        task["labels"] = {"no": "terrible", "yes": "great"}
    return from_values(
        {
            "model": {"name": model, "tune": "full"},
            "data": {
                "train": str(data),
                "second": "other" if kind == "classification" else None,
                "max_length": 32,
                "max_completion_length": 4,
            },
            "task": task,
            "method": {
                "directions": 4,
                "steps": 2,
                "batch": 4.0,
                "micro_batch_tokens": 64,
                **method,
            },
            "privacy": {"epsilon": 8.0},
            "output": str(data.parent / "run"),
        }
    )


def losses_of(session: Session, data: LabelledText, rows: list[int]) -> np.ndarray:
    passes = moves("two-sided", 4, session.settings.perturbation_scale)
    losses = session.losses(session.optimised_task(data))
    return losses.at(np.array(rows), passes, charge=0)


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_slopes_of_a_score_are_bounded_and_the_clip_is_no_more(mechanism, tiny, tmp_path: Path):
    path = write("pairs", tmp_path / "train.jsonl")
    config = configured("classification", tiny("bert"), path, "accuracy", clip_norm=1e9)
    config = from_values(config.to_json() | {"privacy": {"epsilon": 8.0, "mechanism": mechanism}})
    session = begin(config, units=16)
    scale = session.settings.perturbation_scale
    data = read_labelled_text(str(path), config.data, config.task, with_units=True)
    found = slopes("two-sided", losses_of(session, data, list(range(16))), scale)
    assert set(np.round(found * 2 * scale, 9).ravel()) == {-1.0, 0.0, 1.0}
    ones = 4 if mechanism == "laplace" else math.sqrt(4)
    assert session.plan.clip_norm == pytest.approx(ones / (2 * scale))  # type: ignore[union-attr]


def test_a_smaller_clip_is_taken_as_it_is(tiny, tmp_path: Path):
    path = write("pairs", tmp_path / "train.jsonl")
    config = configured("classification", tiny("bert"), path, "accuracy", clip_norm=0.125)
    assert begin(config, units=16).plan.clip_norm == 0.125  # type: ignore[union-attr]


def test_answers_are_written_each_alone(tiny, tmp_path: Path, monkeypatch):
    path = write("completion", tmp_path / "train.jsonl")
    config = configured("completion", tiny("opt"), path, "f1", micro_batch_tokens=128)
    session = begin(config, units=16)
    data = read_labelled_text(str(path), config.data, config.task, with_units=True)
    alone = np.concatenate([losses_of(session, data, [row]) for row in range(16)])
    together: list[int] = []
    complete = CompletionReadOut.complete

    def watched(readout, prompts):
        together.append(len(prompts))
        return complete(readout, prompts)

    monkeypatch.setattr(CompletionReadOut, "complete", watched)
    everyone = losses_of(session, data, list(range(16)))
    assert np.array_equal(everyone, alone)
    assert together == [1] * 16 * 8  # and none of the rows that fill micro-batches up


def test_isolation_is_tried_on_likelihoods_which_see_more_than_scores(
    tiny, tmp_path: Path, monkeypatch
):
    """A hair of others' losses changes no answer, and is seen all the same."""
    honest = ClassifyingReadOut.losses

    def coupled(readout, scores, labels):
        losses = honest(readout, scores, labels)
        return losses + 1e-9 * losses.mean(dim=-1, keepdim=True)

    path = write("pairs", tmp_path / "train.jsonl")
    config = configured("classification", tiny("bert"), path, "accuracy", micro_batch_tokens=128)
    assert max(shape.rows for shape in begin(config, units=16).shapes) > 1
    monkeypatch.setattr(ClassifyingReadOut, "losses", coupled)
    assert {shape.rows for shape in begin(config, units=16).shapes} == {1}


def test_an_error_in_a_score_says_nothing_of_the_text(tiny, tmp_path: Path):
    (tmp_path / "score.py").write_text(
        "def score(answer, accepted):\n"
        "    if 'secret' in accepted[0]:\n"
        "        raise RuntimeError(accepted[0])\n"
        "    return float(len(answer))\n",
        encoding="utf-8",
    )
    rows = [{"prompt": "a good film", "completion": "secret"}] * 4
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = configured(
        "completion", tiny("opt"), path, f"{tmp_path / 'score.py'}:score", batch=4.0
    )
    with pytest.raises(StepFailed) as failed:
        train(config, Quiet())
    assert "secret" not in str(failed.value)
    assert failed.value.__context__ is None
    assert failed.value.__cause__ is None


def test_answers_that_never_change_are_refused(tiny, tmp_path: Path, capsys):
    path = write("pairs", tmp_path / "train.jsonl")
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--model.name", tiny("bert"), "--data.train", str(path),
              "--data.second", "other", "--task.labels", "no", "terrible", "yes", "great",
              "--data.max-length", "32", "--method.directions", "2",
              "--task.objective", "accuracy", "--method.perturbation-scale", "1e-9",
              "--privacy.epsilon", "8", "--output", str(tmp_path / "run")])  # fmt: skip
    assert exit_.value.code == 1
    assert "task.objective: no answer to public text changes" in capsys.readouterr().err


def test_accuracy_is_learned_from_answers_alone(tiny, tmp_path: Path, capsys):
    """Steps are wide: with narrow ones, one model in four stays on a plateau of its answers."""
    rows = [
        {"text": f"{word} film {place}", "label": label}
        for place in ("so", "again", "always", "never", "simply", "truly", "rather", "quite")
        for word, label in (("good", "no"), ("bad", "yes"))
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    public = tmp_path / "public.jsonl"
    public.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    summary = command(
        capsys, "train", "--model.name", tiny("encoder"), "--data.train", str(path),
        "--data.eval", str(public), "--task.labels", "no", "terrible", "yes", "great",
        "--data.max-length", "32", "--task.objective", "accuracy", "--method.name", "mezo",
        "--privacy.mechanism", "none", "--method.steps", "100", "--method.batch", "16",
        "--method.learning-rate", "0.1", "--method.perturbation-scale", "0.3",
        "--output", str(tmp_path / "run"),
    )  # fmt: skip
    assert summary["zero_shot_accuracy"] <= 0.75
    assert summary["non_private_accuracy"] >= 0.9
