"""Bad settings are refused in one line, before any budget is spent.

The line names the key or file, and says what would be accepted.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from refusals import GOOD_ROWS, Refusal

from hushtune.cli import main


@pytest.fixture
def refusal(run_arguments: list[str], tmp_path: Path, capsys) -> Refusal:
    return Refusal(run_arguments, tmp_path, capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--privacy.epsilon 0", "privacy.epsilon: 0.0 is not accepted; it must be a positive"),
        ("--privacy.epsilon -1", "privacy.epsilon: -1.0 is not accepted; it must be a positive"),
        ("--privacy.epsilon nan", "privacy.epsilon: NaN is not accepted; it must be a positive"),
        ("--privacy.epsilon None", "privacy.epsilon: null is not accepted; it must be a positive"),
        ("--privacy.delta 1", "privacy.delta: 1.0 is not accepted; it must be at least 0 and"),
        ("--privacy.delta -0.1", "privacy.delta: -0.1 is not accepted; it must be at least 0 and"),
        ("--privacy.delta 0", "privacy.delta: 0.0 is not accepted; it must be above 0 for the"),
        (
            "--privacy.delta 0.017",
            "privacy.delta: 0.017 is not accepted; it must be below 1 / number of units = 0.0167.",
        ),
        (
            "--method.batch 61",
            "method.batch: 61.0 is not accepted; it must be at most the number of units, 60.",
        ),
        (
            "--data.population 11",
            "method.batch: 12.0 is not accepted; it must be at most the number of units, 11.",
        ),
        ("--method.batch 0", "method.batch: 0.0 is not accepted; it must be positive and finite."),
        ("--method.steps 0", "method.steps: 0 is not accepted; it must be at least 1."),
        ("--method.clip-norm inf", "method.clip_norm: Infinity is not accepted; it must be pos"),
        (
            "--task.objective f1",
            'task.objective: "f1" is not accepted; it must be a score of every example alone: loss',
        ),
        (
            "--task.objective macro-f1",
            'task.objective: "macro-f1" is not accepted; it must be a score of every example alone',
        ),
        (
            "--task.objective accuracy --task.objective-range 0 2",
            "task.objective_range: [0.0, 2.0] is not accepted; it must be left out with task.objec",
        ),
        (
            "--task.objective math:copysign --task.objective-range 1 1",
            "task.objective_range: [1.0, 1.0] is not accepted; it must be two finite numbers, the",
        ),
        (
            "--task.objective nowhere.py:score",
            "task.objective: nowhere.py:score cannot be imported (",
        ),
        (
            "--task.objective math:copysign",
            "task.objective: math:copysign failed on made-up answers (TypeError: must be real numb",
        ),
        (
            "--task.objective accuracy --method.name dp-sgd",
            'method.name: "dp-sgd" is not accepted; it must be another one with task.objective, wh',
        ),
        ("--model.tune some", 'model.tune: "some" is not accepted; it must be full, lora, dora, i'),
        ("--model.tune last-0", 'model.tune: "last-0" is not accepted; it must be full, lora, dor'),
        ("--model.lora.alpha nan", "model.lora.alpha: NaN is not accepted; it must be positive a"),
        ("--data.max-length 7", "data.max_length: 7 is not accepted; it must be at least 8."),
        ("--eval-every -1", "eval_every: -1 is not accepted; it must be 0 or more."),
        ("--output=", 'output: "" is not accepted; it must be a folder for the run.'),
        (
            "--method.name dp-zo",
            "method.directions: 4 is not accepted; it must be 1 for dp-zo; several directions are",
        ),
        (
            "--method.name dpzero",
            "method.directions: 4 is not accepted; it must be 1 for dpzero; several directions are",
        ),
        (
            "--method.name mezo",
            'privacy.mechanism: "gaussian" is not accepted; it must be none with method mezo, and',
        ),
        (
            "--privacy none",
            'privacy.mechanism: "none" is not accepted; it must be none with method mezo, and ga',
        ),
        (
            "--privacy.mechanism laplace --privacy.delta 1e-5",
            "privacy.delta: 1e-05 is not accepted; it must be 0 for the Laplace mechanism with se",
        ),
        (
            "--privacy.mechanism laplace --privacy.delta 1e-5 --method.name dp-zo "
            "--method.directions 1 --privacy.adjacency replace-one",
            "privacy.delta: 1e-05 is not accepted; it must be 0 for the Laplace mechanism with se",
        ),
        (
            "--method.update sgd",
            'method.learning_rate: "auto" is not accepted; it must be a number where method.updat',
        ),
        ("--task.labels negative bad", 'task.labels: {"negative": "bad"} is not accepted; it mus'),
        (
            "--task.labels negative same positive same",
            'task.labels: {"negative": "same", "positive": "same"} is not accepted; it must be di',
        ),
        (
            "--model.name nowhere/model",
            "model.name: nowhere/model is not accepted by AutoConfig (",
        ),
        ("--model.tune last-9", "model.tune: last-9 is not accepted; encoder.encoder.layer has 2"),
        ("--data.max-length 65", "data.max_length: 65 is not accepted; the model has 64 positio"),
        ("--task.template Was.it.good?", "task.template: 'Was.it.good?' is not accepted; it must"),
        ("--task.template {text}{mood}", "task.template: '{text}{mood}' is not accepted; it must"),
        ("--task.template {text}{", "task.template: '{text}{' is not accepted; it must contain"),
        ("--task.template {text!r}", "task.template: '{text!r}' is not accepted; it must contain"),
        ("--task.template {text}{0}", "task.template: '{text}{0}' is not accepted; it must cont"),
        (
            "--task.template a.a.a.a.{text} --data.max-length 8",
            "data.max_length: 8 is not accepted; the template needs at least 11",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_what_can(
    refusal: Refusal, flags: str, message: str
):
    assert refusal(*flags.split()).startswith(message)


def test_a_model_folder_that_does_not_exist_is_named(refusal: Refusal):
    folder = str(refusal.folder / "no-model")
    line = refusal("--model.name", folder)
    assert line.startswith(f"model.name: {folder} is not accepted, there is no such folder; ")
    assert line.endswith("it must be a folder written by save_pretrained, or a name on the hub.")


@pytest.mark.parametrize(
    ("words", "template", "message"),
    [
        (("bad", "neutral"), "", "task.labels: 'neutral' is not one token of this vocabulary; "),
        (("bad", "very good"), "", "task.labels: 'very good' is not one token of this vocabulary"),
        (("bad", "good"), "{text}", "task.template: '{text}' is not accepted; it must contain {te"),
    ],
)
def test_label_words_that_a_masked_model_cannot_say_are_named(
    refusal: Refusal,
    encoder_folder: str,
    tmp_path: Path,
    words: tuple[str, str],
    template: str,
    message: str,
):
    from transformers import BertConfig, BertForMaskedLM

    masked = tmp_path / "masked"
    shutil.copytree(encoder_folder, masked)
    BertForMaskedLM(BertConfig.from_pretrained(encoder_folder)).save_pretrained(masked)
    labels = ["--task.labels", "negative", words[0], "positive", words[1]]
    line = refusal("--model.name", str(masked), *labels, "--task.template", template)
    assert line.startswith(message)


@pytest.mark.parametrize("tune", ["head", "full"])
def test_a_model_without_a_finite_loss_is_refused(
    refusal: Refusal, encoder_folder: str, tmp_path: Path, tune: str
):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(encoder_folder, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    line = refusal("--model.name", str(broken), "--model.tune", tune)
    assert line.startswith("model.name: its loss on plain public text is not finite; expected ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--method.step 5", "--method.step, 5. Did you mean --method.steps?"),
        ("--frobnicate", "Unrecognized options: --frobnicate."),
        ("--method.steps some", "Accepted: --method.steps INT|{auto}."),
        ("--method.steps", "Missing value for argument '--method.steps'."),
        (
            "--method.name adam",
            "Expected one of ('dp-aggzo', 'dp-zo', 'dpzero', 'mezo', 'dp-sgd', 'dr-encoder').",
        ),
        ("--task.labels negative", "Accepted: --task.labels [STR STR [STR STR ...]]."),
    ],
)
def test_flags_that_cannot_be_used_exit_with_2(refusal: Refusal, flags: str, message: str):
    line = refusal(*flags.split(), code=2)
    assert message in line
    assert line.endswith("See hushtune train --help.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: {stepz: 5}", ": unknown key method.stepz; did you mean steps? accepted: name, d"),
        ("method: {steps: 1.5}", ": method.steps: 1.5 is not accepted; it must be 'auto' or an i"),
        ("method: [", ", line 1: not YAML ("),
    ],
)
def test_a_run_file_that_cannot_be_used_is_named(
    tmp_path: Path, capsys, monkeypatch, text: str, message: str
):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(text)
    line = Refusal(["run.yaml"], tmp_path, capsys)()
    assert line.startswith(f"run.yaml{message}")


def test_bad_input_adds_nothing_to_a_ledger_that_is_there(
    run_arguments: list[str], tmp_path: Path, capsys
):
    with pytest.raises(SystemExit, match="0"):
        main(["train", *run_arguments, "--json"])
    ledger = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    rows = (tmp_path / "train.jsonl").read_text()
    bad_row = json.dumps({"text": "", "label": "positive"}) + "\n"
    for content, flags in [
        (rows + bad_row, ()),
        (rows + GOOD_ROWS, ()),
        (rows, ("--privacy.epsilon", "0")),
        (rows, ("--method.steps", "6")),
    ]:
        (tmp_path / "train.jsonl").write_text(content)
        capsys.readouterr()
        with pytest.raises(SystemExit, match="1"):
            main(["train", *run_arguments, *flags])
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == ledger
