"""The configuration: YAML 1.2, flags over file, one line for whatever cannot be used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushtune import config as configuration
from hushtune.cli.arguments import parse_run
from hushtune.config import Config, ConfigError
from hushtune.files import write_config

EXAMPLES = Path(__file__).parent.parent / "examples"

#: Every setting there is. A new one needs a reason; the test makes somebody give it.
SETTINGS = """
    data.choices data.combine data.completion data.eval data.identity data.label
    data.max_completion_length data.max_length data.messages data.population data.prompt data.second
    data.text data.train data.unit eval_every federated.clients federated.codec
    federated.compression federated.examples federated.heterogeneity federated.least_replies
    federated.level federated.local_batch federated.local_learning_rate federated.moment_rounds
    federated.prior federated.timeout federated.trust method.batch method.clip_norm
    method.directions method.distribution method.optimizer method.estimator
    method.learning_rate method.micro_batch_tokens method.name
    method.perturbation_scale method.schedule method.steps method.update model.dtype
    model.lora.alpha model.lora.dtype model.lora.r model.lora.target_modules model.name
    model.offload model.quantise model.tune model.virtual_tokens output
    privacy.adjacency privacy.delta privacy.epsilon privacy.mechanism privacy.registry seed
    task.kind task.labels task.objective task.objective_range task.options task.readout
    task.template
"""


def read(folder: Path, text: str) -> Config:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return configuration.load(path)


def settings(value: Any, prefix: str = "") -> set[str]:
    if not dataclasses.is_dataclass(value):
        return {prefix}
    return {
        name
        for item in dataclasses.fields(value)
        for name in settings(getattr(value, item.name), f"{prefix}.{item.name}".lstrip("."))
    }


def test_there_are_no_more_settings_than_these():
    assert settings(Config()) == set(SETTINGS.split())


@pytest.mark.parametrize(
    "path",
    # A search has a section of its own; tests/test_tuning.py reads it. Clients have other checks;
    # tests/federated/test_federated_settings.py has them done.
    sorted({*EXAMPLES.glob("*.yaml")} - {EXAMPLES / "search.yaml", EXAMPLES / "federated.yaml"}),
    ids=lambda path: path.stem,
)
def test_every_example_is_accepted(path: Path):
    configuration.check(configuration.load(path))


def test_a_number_with_an_exponent_needs_no_dot(tmp_path: Path):
    assert read(tmp_path, "privacy: {delta: 1e-5}").privacy.delta == 1e-5


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "y"])
def test_words_that_older_yaml_takes_for_booleans_are_text(tmp_path: Path, word: str):
    assert read(tmp_path, f"data: {{unit: {word}}}").data.unit == word
    labels = read(tmp_path, f"task: {{labels: {{{word}: {word}, other: else}}}}").task.labels
    assert labels == {word: word, "other": "else"}


def test_labels_may_be_a_list_of_their_own_words(tmp_path: Path):
    config = read(tmp_path, "task: {labels: [no, yes, 3, true]}")
    assert config.task.labels == {"no": "no", "yes": "yes", "3": "3", "true": "true"}
    assert list(config.task.labels) == ["no", "yes", "3", "true"]


def test_numbered_labels_are_names(tmp_path: Path):
    labels = read(tmp_path, "task: {labels: {0: terrible, 1: great}}").task.labels
    assert labels == {"0": "terrible", "1": "great"}


def test_a_whole_number_serves_where_any_number_does(tmp_path: Path):
    assert read(tmp_path, "privacy: {epsilon: 2}").privacy.epsilon == 2.0


def test_a_date_is_text(tmp_path: Path):
    assert read(tmp_path, "output: 2026-01-31").output == "2026-01-31"


def test_no_privacy_is_one_word_in_the_file_and_as_a_flag(tmp_path: Path):
    assert read(tmp_path, "privacy: none").privacy.mechanism == "none"
    for flags in (["--privacy", "none"], ["--privacy=none"]):
        config, _ = parse_run("train", ["--method.name", "mezo", *flags])
        assert config.privacy.mechanism == "none"


def test_flags_override_the_file(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("privacy: {epsilon: 2, delta: 1e-6}\ntask: {labels: [a, b]}\nseed: 3\n")
    config, as_json = parse_run("train", [str(path), "--privacy.epsilon", "8", "--json"])
    assert config.privacy == dataclasses.replace(Config().privacy, epsilon=8.0, delta=1e-6)
    assert (config.seed, config.task.labels, as_json) == (3, {"a": "a", "b": "b"}, True)


def test_auto_can_be_asked_for_again_by_a_flag(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("method: {steps: 3}\n")
    assert parse_run("train", [str(path), "--method.steps", "auto"])[0].method.steps == "auto"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "method: {steps: 1.5}",
            "method.steps: 1.5 is not accepted; it must be 'auto' or an integer.",
        ),
        (
            "method: {steps: true}",
            "method.steps: true is not accepted; it must be 'auto' or an integer.",
        ),
        (
            "method: {steps: '7'}",
            "method.steps: \"7\" is not accepted; it must be 'auto' or an integer.",
        ),
        ("privacy: {epsilon: two}", 'privacy.epsilon: "two" is not accepted; it must be a number.'),
        ("output: 5", "output: 5 is not accepted; it must be text."),
        (
            "model: {dtype: float8}",
            'model.dtype: "float8" is not accepted; '
            "it must be 'auto', 'float32', 'bfloat16' or 'float16'.",
        ),
        (
            "model: roberta-large",
            'model: "roberta-large" is not accepted; '
            "it must be a section with the keys name, tune, dtype, quantise, offload, "
            "virtual_tokens, lora.",
        ),
        (
            "privacy:",
            "privacy: null is not accepted; "
            "it must be none, or a section with the keys "
            "epsilon, delta, mechanism, adjacency, registry.",
        ),
        (
            "model: {lora: {target_modules: query}}",
            'model.lora.target_modules: "query" is not accepted; it must be a list.',
        ),
        (
            "task: {labels: {int: 5, b: c}}",
            "task.labels.int: 5 is not accepted; it must be text.",
        ),
        (
            "task: {labels: [a, a]}",
            'task.labels: ["a", "a"] is not accepted; '
            "it must be different labels, or labels with their words.",
        ),
        (
            "model: {lora: {rank: 4}}",
            "unknown key model.lora.rank; accepted: r, alpha, target_modules, dtype.",
        ),
        (
            "privacy: {epsilonn: 4}",
            "unknown key privacy.epsilonn; did you mean epsilon? "
            "accepted: epsilon, delta, mechanism, adjacency, registry.",
        ),
        (
            "sede: 4",
            "unknown key sede; did you mean seed? "
            "accepted: model, data, task, method, privacy, federated, output, seed, eval_every.",
        ),
        ("- model", "expected keys such as model, data, task and privacy."),
        ("", "expected keys such as model, data, task and privacy."),
        ("output: !!binary aGVsbG8=", "expected text, numbers and lists only (not bytes)."),
    ],
)
def test_what_cannot_be_used_is_named_with_what_can(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path, text)
    assert str(refusal.value) == f"{tmp_path / 'run.yaml'}: {message}"


@pytest.mark.parametrize(
    ("text", "line"), [("a: {", 1), ("seed: 1\nseed: 2\n", 2), ("a: b\n c: d\n", 2)]
)
def test_malformed_yaml_is_refused_with_its_line(tmp_path: Path, text: str, line: int):
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path, text)
    assert str(refusal.value).startswith(f"{tmp_path / 'run.yaml'}, line {line}: not YAML (")
    assert "\n" not in str(refusal.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "latin.yaml").write_bytes(b"output: caf\xe9")
    for path, complaint in [
        (tmp_path / "missing.yaml", "no such file."),
        (tmp_path, "expected a YAML file."),
        (tmp_path / "latin.yaml", "expected text in UTF-8."),
    ]:
        with pytest.raises(ConfigError) as refusal:
            configuration.load(path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert str(refusal.value).endswith(complaint)


words = st.one_of(
    st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12),
    st.sampled_from(["no", "null", "~", "1e-5", "0x1f", "2026-01-31", "{label}", "a: b", "- c"]),
)
positive = st.floats(min_value=1e-300, max_value=1e300)


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    labels = draw(st.dictionaries(words, words, min_size=2, max_size=5))
    start = Config()
    return Config(
        model=dataclasses.replace(
            start.model,
            name=draw(words),
            lora=dataclasses.replace(start.model.lora, target_modules=(draw(words),)),
        ),
        data=dataclasses.replace(
            start.data, unit=draw(st.none() | words), population=draw(st.none() | st.integers(1))
        ),
        task=dataclasses.replace(start.task, template=draw(words), labels=labels),
        method=dataclasses.replace(
            start.method,
            batch=draw(st.just("auto") | positive),
            steps=draw(st.just("auto") | st.integers(1, 2**62)),
        ),
        privacy=dataclasses.replace(start.privacy, epsilon=draw(st.none() | positive)),
        seed=draw(st.integers(0, 2**63)),
    )


@given(config=configurations())
def test_a_written_configuration_loads_as_the_same_one(tmp_path_factory, config: Config):
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    write_config(path, config)
    loaded = configuration.load(path)
    assert loaded == config
    assert configuration.differences(loaded, config) == []
    assert configuration.from_values(json.loads(json.dumps(config.to_json()))) == config


def test_differences_are_named_by_their_keys():
    one = configuration.from_values({"task": {"labels": ["a", "b"]}, "seed": 1})
    other = configuration.from_values(
        {"task": {"labels": {"a": "x", "b": "b"}}, "model": {"lora": {"r": 4}}, "seed": 1}
    )
    assert configuration.differences(one, other) == ["model.lora.r", "task.labels.a"]


def test_the_order_of_labels_makes_a_difference():
    one = configuration.from_values({"task": {"labels": ["a", "b"]}})
    other = configuration.from_values({"task": {"labels": ["b", "a"]}})
    assert configuration.differences(one, other) == ["task.labels"]
