"""Settings: those of transformers with the same meaning, hushtune's own, and what is refused."""

from __future__ import annotations

import dataclasses
import inspect
import pydoc

import pytest
import transformers

import hushtune
from hushtune import ZerothOrderArguments, ZerothOrderTrainer
from hushtune.config import ConfigError

OWN = {field.name for field in dataclasses.fields(ZerothOrderArguments)}
THEIRS = [field.name for field in dataclasses.fields(transformers.TrainingArguments)]


@pytest.mark.parametrize("name", [*sorted(set(THEIRS) - OWN), "group_by_length", "warmup_ratio"])
def test_an_argument_of_transformers_is_taken_or_refused_in_a_line_that_helps(name):
    with pytest.raises(ConfigError) as refused:
        ZerothOrderArguments("out", epsilon=2.0, **{name: True})
    message = str(refused.value)
    assert message.startswith(f"{name}: is no argument of ZerothOrderArguments; ")
    assert len(message) < 200
    assert "\n" not in message


@pytest.mark.parametrize(
    "name",
    [*inspect.signature(transformers.Trainer.__init__).parameters, "tokenizer"],
)
def test_an_argument_of_their_trainer_is_taken_or_refused(name):
    taken = inspect.signature(ZerothOrderTrainer.__init__).parameters
    if name not in taken:
        with pytest.raises(ConfigError, match=rf"^{name}: is no argument of ZerothOrderTrainer; "):
            ZerothOrderTrainer(None, None, **{name: 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": -1.0}, "epsilon: -1.0 is not accepted; it must be a positive number"),
        ({"epsilon": "2"}, 'epsilon: "2" is not accepted'),
        ({"delta": 2.0}, "delta: 2.0 is not accepted"),
        ({"max_steps": -1}, "max_steps: -1 is not accepted; it must be at least 1"),
        ({"batch": 0.0}, "batch: 0.0 is not accepted"),
        ({"method": "mezo"}, 'method: "mezo" is not accepted; it must be dp-aggzo or'),
        ({"method": "dp-zo", "directions": 4}, "directions: 4 is not accepted"),
        ({"learning_rate": 2e-5}, "learning_rate: 2e-05 is not accepted; it must be auto, or at"),
        ({"update": "sgd"}, "learning_rate: .*a number where update is sgd"),
        ({"lr_scheduler_type": "cosine"}, 'lr_scheduler_type: "cosine" is not accepted'),
        ({"eval_strategy": "epoch"}, "eval_strategy: .*no or steps"),
        ({"eval_strategy": "steps"}, "eval_steps: null is not accepted; it must be given with"),
        ({"save_steps": 0}, "save_steps: 0 is not accepted; it must be at least 1"),
        ({"unit": "example"}, "unit: .*a column of another name"),
        ({"report_to": "wandb"}, 'report_to: "wandb" is not accepted; it must be none'),
        ({"registry": "file.jsonl"}, "identity: null is not accepted"),
        ({"max_length": 4}, "max_length: 4 is not accepted"),
    ],
)
def test_what_cannot_be_used_is_refused_under_the_name_that_it_has_here(settings, message):
    with pytest.raises(ConfigError, match=message) as refused:
        ZerothOrderArguments("out", **({"epsilon": 2.0} | settings))
    assert "\n" not in str(refused.value)
    assert "privacy." not in str(refused.value)
    assert "method." not in str(refused.value)


def test_settings_are_frozen_and_keep_the_token_to_themselves():
    arguments = ZerothOrderArguments("out", epsilon=2.0, hub_token="hf_secret")
    with pytest.raises(dataclasses.FrozenInstanceError):
        arguments.epsilon = 3.0  # type: ignore[misc]
    assert dataclasses.replace(arguments, epsilon=3.0).epsilon == 3.0
    for shown in (repr(arguments), arguments.to_json_string(), str(arguments.to_sanitized_dict())):
        assert "hf_secret" not in shown
        assert "epsilon" in shown


def test_help_shows_every_setting():
    assert list(inspect.signature(ZerothOrderArguments).parameters) == [
        field.name for field in dataclasses.fields(ZerothOrderArguments)
    ]
    shown = pydoc.render_doc(ZerothOrderTrainer, renderer=pydoc.plaintext)
    for name in inspect.signature(ZerothOrderTrainer.__init__).parameters:
        assert name in shown
    assert "private rows" in shown


def test_the_other_trainer_s_settings_are_refused_as_a_whole():
    theirs = transformers.TrainingArguments(output_dir="out", report_to="none")
    with pytest.raises(ConfigError, match="args: TrainingArguments is not accepted"):
        ZerothOrderTrainer(None, theirs)  # type: ignore[arg-type]


def test_they_are_exported_without_being_imported():
    assert {"ZerothOrderArguments", "ZerothOrderTrainer"} <= set(hushtune.__all__)
