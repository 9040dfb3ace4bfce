"""What a person may choose, as frozen dataclasses; the same names in YAML and as flags.

`load` reads a YAML 1.2 file (so 1e-5 is a number and `no` is text) and refuses unknown keys and
wrong types in one line. Values that need the data, the model or the accountant to judge are
checked where they are used, before any budget is spent.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Auto = Literal["auto"]


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the key and what is accepted."""


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (Hu et al., 2021), as PEFT makes them."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    r: int = 8
    """Rank."""
    alpha: float = 16.0
    """The update is scaled by alpha / r."""
    target_modules: tuple[str, ...] = ()
    """Names of the layers that get adapters; empty: PEFT's choice for the architecture."""


@dataclass(frozen=True)
class ModelConfig:
    """The model to adapt and the part of it that moves."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str = ""
    """A folder written by save_pretrained, or a name on the hub."""
    tune: str = "auto"
    """full | lora | head | bias | last-N; auto: head for encoders and new heads, else lora."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the weights; auto: float32."""
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True)
class DataConfig:
    """The private training data and, where there is any, public evaluation data."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    train: str = ""
    """JSONL, CSV or Parquet with a text and a label column; private."""
    eval: str | None = None
    """The same columns; treated as PUBLIC: accuracies on it are printed as they are."""
    text: str = "text"
    """Name of the text column."""
    label: str = "label"
    """Name of the label column."""
    unit: str | None = None
    """Column that names the unit of privacy, such as user_id; none: every row is a unit."""
    combine: Literal["mean", "sum"] = "mean"
    """How the rows of a unit become one vector before the clip."""
    population: int | None = None
    """Number of units to account with, where the exact number is not public; none: it is."""
    max_length: int = 128
    """Longest text in tokens; the rest of a longer one is cut off."""


@dataclass(frozen=True)
class TaskConfig:
    """How a text becomes a prediction."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["classification"] = "classification"
    readout: Literal["auto", "mask", "continuation", "head", "descriptions"] = "auto"
    """Where labels are read: words at the mask, words as continuation, a classification head,
    or the cosine to encoded descriptions; auto: what the model was made for."""
    template: str = ""
    """Text with {text} and {label}; empty: '{text} It was {label}.' (or '{text}')."""
    labels: dict[str, str] = field(default_factory=dict)
    """Label in the data: the words (or description) that stand for it."""


@dataclass(frozen=True)
class MethodConfig:
    """How the model is moved."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Literal["dp-aggzo", "dp-zo", "dpzero", "mezo"] = "dp-aggzo"
    directions: int | Auto = "auto"
    """K, directions a step; 1 for all methods but dp-aggzo."""
    distribution: Literal["auto", "rademacher", "normal", "sphere"] = "auto"
    """Of the directions' entries; auto: rademacher (dpzero: sphere)."""
    estimator: Literal["auto", "two-sided", "one-sided"] = "auto"
    """(ℓ(θ+λz) − ℓ(θ−λz)) / 2λ, or (ℓ(θ+λz) − ℓ(θ)) / λ."""
    perturbation_scale: float | Auto = "auto"
    """λ."""
    clip_norm: float | Auto = "auto"
    """C, the bound on a unit's vector of K loss slopes."""
    update: Literal["normalised", "sgd"] = "normalised"
    """normalised: steps in units of what is released; sgd: θ ← θ − η Σ g z / K as it stands."""
    learning_rate: float | Auto = "auto"
    """normalised: roughly how many nats a run may move a typical loss, 1 is large; sgd: η."""
    schedule: Literal["auto", "constant", "linear"] = "auto"
    """Of the learning rate over the planned steps; auto: linear, down to zero."""
    steps: int | Auto = "auto"
    """T."""
    batch: float | Auto = "auto"
    """Expected number of units a step."""
    micro_batch_tokens: int = 1024
    """Tokens in a forward pass; every micro-batch of a text length has the same shape."""


@dataclass(frozen=True)
class PrivacyConfig:
    """The guarantee that is asked for."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    epsilon: float | None = None
    delta: float | Auto = "auto"
    """auto: 1e-5 for gaussian, 0 for laplace."""
    mechanism: Literal["gaussian", "laplace", "none"] = "gaussian"
    """laplace gives pure ε; none goes with method mezo only."""
    adjacency: Literal["add-or-remove-one", "replace-one"] = "add-or-remove-one"


@dataclass(frozen=True)
class Config:
    """A run, complete."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    output: str = "runs/run"
    """The run folder."""
    seed: int = 0
    """Public: directions and new parameters only. Noise and sampling have no seed."""
    eval_every: int = 0
    """Steps between evaluations on the public evaluation data; 0: before and after only."""

    def to_json(self) -> dict[str, Any]:
        """Nested plain values."""
        return dataclasses.asdict(self)


def load(path: str | Path) -> Config:
    """Read a run file.

    Raises:
        ConfigError: one line that names file and key and says what is accepted.
    """
    try:
        values = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys such as model, data, task and privacy.")
    return from_values(values, source=str(path))


def from_values(values: dict[str, Any], *, source: str = "config") -> Config:
    """A config from nested plain values, as YAML or the ledger's header hold them."""
    values = json.loads(json.dumps(values))
    if values.get("privacy") in ("none", None) and "privacy" in values:
        values["privacy"] = {"mechanism": "none"}
    labels = (values.get("task") or {}).get("labels") if isinstance(values.get("task"), dict) else 0
    if isinstance(labels, list):
        values["task"]["labels"] = {str(label): str(label) for label in labels}
    try:
        # JSON mode: arrays become tuples, and nothing else is converted ("yes" is no boolean).
        return TypeAdapter(Config).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error)}") from None


def check(config: Config) -> None:
    """Refuse what can be refused without model, data or accountant.

    Raises:
        ConfigError: one line that names the key, its value and what is accepted.
    """
    require = _require
    require(bool(config.model.name), "model.name", config.model.name,
            "a folder or a name on the hub")
    require(bool(config.data.train), "data.train", config.data.train, "a file")
    require(len(config.task.labels) >= 2, "task.labels", config.task.labels,
            "at least two labels with their words, such as {negative: terrible, positive: great}")
    require(re.fullmatch(r"auto|full|lora|head|bias|last-[1-9]\d*", config.model.tune) is not None,
            "model.tune", config.model.tune, "full, lora, head, bias or last-N")
    require(config.model.lora.r >= 1, "model.lora.r", config.model.lora.r, "at least 1")
    require(config.data.max_length >= 8, "data.max_length", config.data.max_length, "at least 8")
    require(config.data.population is None or config.data.population >= 1,
            "data.population", config.data.population, "at least 1")
    _check_method(config)
    _check_privacy(config)


def _check_method(config: Config) -> None:
    method = config.method
    for key in ("directions", "steps"):
        value = getattr(method, key)
        _require(value == "auto" or value >= 1, f"method.{key}", value, "at least 1")
    for key in ("perturbation_scale", "clip_norm", "learning_rate", "batch"):
        value = getattr(method, key)
        _require(value == "auto" or 0 < value < math.inf, f"method.{key}", value,
                 "positive and finite")
    _require(method.name == "dp-aggzo" or method.directions in ("auto", 1) or method.name == "mezo",
             "method.directions", method.directions,
             f"1 for {method.name}; several directions are method dp-aggzo")
    _require(method.update == "normalised" or method.learning_rate != "auto",
             "method.learning_rate", method.learning_rate, "a number where method.update is sgd")
    _require(method.micro_batch_tokens >= 8, "method.micro_batch_tokens",
             method.micro_batch_tokens, "at least 8")
    _require(config.eval_every >= 0, "eval_every", config.eval_every, "0 or more")


def _check_privacy(config: Config) -> None:
    privacy = config.privacy
    without = privacy.mechanism == "none"
    _require(without == (config.method.name == "mezo"), "privacy.mechanism", privacy.mechanism,
             "none with method mezo, and gaussian or laplace with every other method")
    if without:
        return
    _require(privacy.epsilon is not None and 0 < privacy.epsilon < math.inf,
             "privacy.epsilon", privacy.epsilon, "a positive number")
    _require(privacy.delta == "auto" or 0 <= privacy.delta < 1, "privacy.delta", privacy.delta,
             "at least 0 and below 1")
    _require(privacy.mechanism == "laplace" or privacy.delta != 0, "privacy.delta", privacy.delta,
             "above 0 for the Gaussian mechanism; pure ε is mechanism laplace")


def _require(holds: bool, key: str, value: object, accepted: str) -> None:
    if not holds:
        raise ConfigError(f"{key}: {json.dumps(value)} is not accepted; it must be {accepted}.")


def _first_problem(error: ValidationError) -> str:
    """One line for the first problem, with the key as a person wrote it."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"] if not str(part).startswith("literal[")]
    if problem["type"] == "unexpected_keyword_argument":
        *parents, key = path
        known = _keys(parents)
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"unknown key {'.'.join(path)}; {hint}accepted: {', '.join(known)}."
    while path and path[-1] in ("int", "float", "str", "bool", "int or 'auto'"):
        path.pop()
    wanted = sorted({_wanted(p) for p in error.errors() if _same_key(p["loc"], path)})
    return f"{'.'.join(path)}: {json.dumps(problem['input'])} is not accepted; {' or '.join(wanted)}."


def _wanted(problem: Any) -> str:
    message = problem["msg"]
    return message[0].lower() + message[1:]


def _same_key(location: tuple[Any, ...], path: list[str]) -> bool:
    return [str(part) for part in location[: len(path)]] == path


def _keys(parents: list[str]) -> list[str]:
    adapter: Any = Config()
    for name in parents:
        adapter = getattr(adapter, name)
    return [item.name for item in dataclasses.fields(adapter)]


def differences(one: Config, other: Config) -> list[str]:
    """Names of the settings in which two configurations differ."""
    flat_one, flat_other = _flat("", one.to_json()), _flat("", other.to_json())
    return sorted(
        key for key in flat_one.keys() | flat_other.keys() if flat_one.get(key) != flat_other.get(key)
    )


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: list(value) if isinstance(value, tuple) else value}
    pieces = [_flat(f"{prefix}.{key}" if prefix else key, item) for key, item in value.items()]
    return {key: item for piece in pieces for key, item in piece.items()}
