"""Refuse settings that cannot work, one line each, before a model is loaded or budget is spent.

`check` needs the configuration alone, `check_units` the number of units as well. What only the
model or the accountant can judge is refused where it is used, still before the first step.
"""

from __future__ import annotations

import json
import math
import re

from hushtune.config.settings import ADAPTERS, VIRTUAL, Config, ConfigError, PrivacyConfig
from hushtune.config.sources import same_data


def check(config: Config) -> None:
    """Refuse what can be refused without model, data or accountant, where the data is in one place.

    Raises:
        ConfigError: one line that names the key, its value and what is accepted.
    """
    clients, name = config.federated.clients, config.method.name
    require(clients == 0, "federated.clients", clients, "0, or a run of `hushtune federate`")
    require(name != "dr-encoder", "method.name", name, "another one, or a `hushtune federate` run")
    check_settings(config)


def check_settings(config: Config) -> None:
    """`check`, wherever the data is."""
    model, data = config.model, config.data
    require(bool(model.name), "model.name", model.name, "a folder or a name on the hub")
    require(
        data.eval is None or not same_data(data.eval, data.train),
        "data.eval",
        data.eval,
        "public data, and not the private training data",
    )
    ways = "|".join(("auto", "full", *ADAPTERS, "head", "bias", r"last-[1-9]\d*"))
    require(
        re.fullmatch(ways, model.tune) is not None,
        "model.tune",
        model.tune,
        f"full, {', '.join(ADAPTERS)}, head, bias or last-N",
    )
    _check_quantise(config)
    _check_offload(config)
    require(model.virtual_tokens >= 1, "model.virtual_tokens", model.virtual_tokens, "at least 1")
    require(model.lora.r >= 1, "model.lora.r", model.lora.r, "at least 1")
    require(
        0 < model.lora.alpha < math.inf, "model.lora.alpha", model.lora.alpha, "positive and finite"
    )
    require(
        data.unit != "example",
        "data.unit",
        data.unit,
        "none for rows, or a column; a column of this name would be taken for rows",
    )
    require(bool(data.train), "data.train", data.train, "a file")
    require(data.max_length >= 8, "data.max_length", data.max_length, "at least 8")
    require(
        data.population is None or data.population >= 1,
        "data.population",
        data.population,
        "at least 1",
    )
    require(bool(config.output), "output", config.output, "a folder for the run")
    require(config.eval_every >= 0, "eval_every", config.eval_every, "0 or more")
    _check_task(config)
    check_training(config)


def check_training(config: Config) -> None:
    """`check`, of method and privacy alone.

    Raises:
        ConfigError: one line that names the key, its value and what is accepted.
    """
    _check_method(config)
    _check_privacy(config)


def check_units(config: Config, units: int) -> None:
    """Refuse a batch or a δ that does not go with so many units.

    Raises:
        ConfigError: one line that names the key, its value and what is accepted.
    """
    batch = config.method.batch
    require(
        batch == "auto" or batch <= units,
        "method.batch",
        batch,
        f"at most the number of units, {units}",
    )
    if config.privacy.mechanism == "none":
        return
    delta = resolved_delta(config.privacy, units)
    # With δ = 1/n, publishing one unit picked at random would count as private.
    require(
        delta < 1 / units, "privacy.delta", delta, f"below 1 / number of units = {1 / units:.3g}"
    )


def _check_quantise(config: Config) -> None:
    model = config.model
    accepted = "none, nf4, int8 or int4"
    if re.search(r"llm|8.?bit|bitsandbytes|bnb", model.quantise, re.IGNORECASE):
        # Named, since it is what most people mean by 8 bits.
        accepted += "; LLM.int8() chooses columns over all rows of a batch: it couples examples"
    known = ("none", "nf4", "int8", "int4")
    require(model.quantise in known, "model.quantise", model.quantise, accepted)
    require(
        model.quantise == "none" or model.tune in ("auto", "lora", *VIRTUAL),
        "model.tune",
        model.tune,
        f"lora, prompt or prefix with model.quantise {model.quantise}",
    )
    require(
        model.quantise == "none" or model.offload == "none",
        "model.offload",
        model.offload,
        f"none with model.quantise {model.quantise}",
    )


def _check_offload(config: Config) -> None:
    model = config.model
    require(
        model.offload == "none" or model.tune not in ("dora", "prompt"),
        "model.offload",
        model.offload,
        f"none with model.tune {model.tune}",
    )


#: Of the methods that go backward through the model.
_OPTIMIZERS = {"dp-sgd": ("adamw", "sgd"), "dr-encoder": ("adam", "sgd")}

#: Objectives beside the loss and one's own function, by kind of task.
_OBJECTIVES = {
    "classification": ("accuracy",),
    "multiple-choice": ("accuracy",),
    "completion": ("f1", "exact-match"),
    "chat": None,
    "language-modelling": None,
}


def _check_objective(config: Config) -> None:
    task = config.task
    known = _OBJECTIVES[task.kind]
    if task.objective == "loss":
        return
    require(known is not None, "task.objective", task.objective, f"loss with task {task.kind}")
    own = re.fullmatch(r".+:\w+", task.objective) is not None
    # Scores of a whole data set, such as F1 of a class, are not what one example adds to.
    accepted = "a score of every example alone: loss, "
    accepted += f"{', '.join(known or ())}, module:function or file.py:function"
    require(own or task.objective in (known or ()), "task.objective", task.objective, accepted)
    low, high = task.objective_range
    require(
        -math.inf < low < high < math.inf,
        "task.objective_range",
        task.objective_range,
        "two finite numbers, the least and the best score",
    )
    require(
        own or (low, high) == (0.0, 1.0),
        "task.objective_range",
        task.objective_range,
        f"left out with task.objective {task.objective}, which is between 0 and 1",
    )
    accepted = "another one with task.objective, which has no gradient"
    first_order = config.method.name in ("dp-sgd", "dr-encoder")
    require(not first_order, "method.name", config.method.name, accepted)
    require(
        config.model.offload == "none" or task.kind != "completion",
        "model.offload",
        config.model.offload,
        "none where task.objective needs completions to be written",
    )


def _check_task(config: Config) -> None:
    task = config.task
    _check_objective(config)
    if task.kind != "classification":
        _check_learned_text(config)
        return
    labels = task.labels
    words = list(labels.values())
    require(
        len(labels) >= 2,
        "task.labels",
        labels,
        "at least two labels with their words, such as {negative: terrible, positive: great}",
    )
    require(all(word.strip() for word in words), "task.labels", labels, "labels with words")
    require(len({*words}) == len(words), "task.labels", labels, "different words for each label")


def _check_learned_text(config: Config) -> None:
    """Tasks without labels of their own."""
    task, data = config.task, config.data
    without = f"left out with task.kind {task.kind}"
    require(not task.labels, "task.labels", task.labels, without)
    require(task.readout == "auto", "task.readout", task.readout, without)
    require(data.second is None, "data.second", data.second, without)
    if task.kind not in ("multiple-choice", "completion"):
        require(not task.template, "task.template", task.template, without)
        return
    require(task.options >= 2, "task.options", task.options, "at least 2")
    require(
        len(data.choices) in (1, task.options),
        "data.choices",
        data.choices,
        f"one column with a list, or as many columns as task.options, {task.options}",
    )
    most = data.max_length // 2
    require(
        1 <= data.max_completion_length <= most,
        "data.max_completion_length",
        data.max_completion_length,
        f"from 1 to half of data.max_length, {most}",
    )


def _check_method(config: Config) -> None:
    method = config.method
    for key in ("directions", "steps"):
        value = getattr(method, key)
        require(value == "auto" or value >= 1, f"method.{key}", value, "at least 1")
    for key in ("perturbation_scale", "clip_norm", "learning_rate", "batch"):
        value = getattr(method, key)
        require(
            value == "auto" or 0 < value < math.inf, f"method.{key}", value, "positive and finite"
        )
    require(
        method.name in ("dp-aggzo", "mezo") or method.directions in ("auto", 1),
        "method.directions",
        method.directions,
        f"1 for {method.name}; several directions are method dp-aggzo",
    )
    if method.name in _OPTIMIZERS:
        _check_first_order(config)
    else:
        accepted = "auto, except with methods dp-sgd and dr-encoder"
        require(method.optimizer == "auto", "method.optimizer", method.optimizer, accepted)
    require(
        method.update == "normalised" or method.learning_rate != "auto",
        "method.learning_rate",
        method.learning_rate,
        "a number where method.update is sgd",
    )
    require(
        method.micro_batch_tokens == "auto" or method.micro_batch_tokens >= 8,
        "method.micro_batch_tokens",
        method.micro_batch_tokens,
        "at least 8",
    )


def _check_first_order(config: Config) -> None:
    """Methods that go backward through the model."""
    method = config.method
    name = method.name
    for key in ("distribution", "estimator", "perturbation_scale"):
        value = getattr(method, key)
        require(value == "auto", f"method.{key}", value, f"auto with {name}: it has none")
    accepted = f"none with {name}, whose backward pass needs all weights"
    require(config.model.offload == "none", "model.offload", config.model.offload, accepted)
    accepted = f"left out with {name}, which has method.optimizer"
    require(method.update == "normalised", "method.update", method.update, accepted)
    known = ("auto", *_OPTIMIZERS[name])
    accepted = f"{', '.join(known)} with {name}"
    require(method.optimizer in known, "method.optimizer", method.optimizer, accepted)
    if name == "dr-encoder":
        given = config.privacy.mechanism
        require(given == "gaussian", "privacy.mechanism", given, "gaussian with dr-encoder")


def _check_privacy(config: Config) -> None:
    method, privacy = config.method, config.privacy
    without = privacy.mechanism == "none"
    require(
        without == (method.name == "mezo"),
        "privacy.mechanism",
        privacy.mechanism,
        "none with method mezo, and gaussian or laplace with every other method",
    )
    require(
        privacy.registry is None or bool(config.data.identity),
        "data.identity",
        config.data.identity,
        "the data set's name in the registry privacy.registry",
    )
    if method.name == "dp-sgd":
        accepted = "gaussian with method dp-sgd"
        require(privacy.mechanism == "gaussian", "privacy.mechanism", privacy.mechanism, accepted)
        require(config.data.unit is None, "data.unit", config.data.unit, "none with dp-sgd")
    if without:
        return
    require(
        privacy.epsilon is not None and 0 < privacy.epsilon < math.inf,
        "privacy.epsilon",
        privacy.epsilon,
        "a positive number",
    )
    delta = privacy.delta
    require(
        delta == "auto" or 0 <= delta < 1, "privacy.delta", delta, "at least 0 and below 1 / units"
    )
    if privacy.mechanism == "gaussian":
        require(
            delta != 0,
            "privacy.delta",
            delta,
            "above 0 for the Gaussian mechanism; pure ε is mechanism laplace",
        )
    elif delta not in ("auto", 0):
        # The accountant has a bound for these cases at δ = 0 only.
        several = method.name == "dp-aggzo" and method.directions != 1
        require(
            not several and privacy.adjacency == "add-or-remove-one",
            "privacy.delta",
            delta,
            "0 for the Laplace mechanism with several directions or with adjacency replace-one",
        )


def default_delta(mechanism: str, units: int) -> float:
    """What δ `auto` stands for: 1e-5, or a tenth of 1 / units where that is less; 0 for Laplace."""
    return 0.0 if mechanism == "laplace" else min(1e-5, 0.1 / units)


def resolved_delta(privacy: PrivacyConfig, units: int) -> float:
    """δ as it is given, or what `auto` stands for with so many units."""
    return default_delta(privacy.mechanism, units) if privacy.delta == "auto" else privacy.delta


def require(holds: bool, key: str, value: object, accepted: str) -> None:
    """Refuse a value in one line.

    Raises:
        ConfigError: naming key and value and what is accepted, if it does not hold.
    """
    if not holds:
        shown = json.dumps(value, ensure_ascii=False)
        raise ConfigError(f"{key}: {shown} is not accepted; it must be {accepted}.")
