"""What a person may choose, as frozen dataclasses; the same names in YAML and as flags."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from hushtune.config.federating import FederatedConfig

Auto = Literal["auto"]


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the key and what is accepted."""


#: Ways of tuning that leave the model as it is, and put adapters in it.
ADAPTERS = ("lora", "dora", "ia3", "prompt", "prefix")

#: Those of them that put virtual tokens in front of a text.
VIRTUAL = ("prompt", "prefix")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (Hu et al., 2021), as PEFT makes them; with ia3, the layers alone."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    r: int = 8
    """Rank."""
    alpha: float = 16.0
    """The update is scaled by alpha / r."""
    target_modules: tuple[str, ...] = ()
    """Names of the layers that get adapters; empty: PEFT's choice for the architecture."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the adapters; auto: float32."""


@dataclass(frozen=True)
class ModelConfig:
    """The model to adapt and the part of it that moves."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str = ""
    """A folder written by save_pretrained, or a name on the hub."""
    tune: str = "auto"
    """full | lora | dora | ia3 | prompt | prefix | head | bias | last-N; auto: head for encoders
    and new heads, else lora."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; auto: float32, or what a quantised model was made from."""
    quantise: str = "none"
    """none | nf4 | int8 | int4: of the base's linear layers, with tune lora, prompt or prefix."""
    offload: Literal["none", "cpu", "disk"] = "none"
    """Where weights wait that do not fit: in host memory (cpu) or the checkpoint's files (disk).
    Every micro-batch fetches each of them once, for all directions; disk:
    lora, ia3, prefix or head only."""
    virtual_tokens: int = 20
    """With prompt or prefix, how many stand in front of a text, beside data.max_length."""
    lora: LoraConfig = field(default_factory=LoraConfig)

    @property
    def columns_added(self) -> int:
        """Virtual tokens that each text gets."""
        return self.virtual_tokens if self.tune in VIRTUAL else 0


@dataclass(frozen=True)
class DataConfig:
    """The private training data and, where there is any, public evaluation data."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    train: str = ""
    """JSONL, CSV or Parquet, or a data set NAME[@CONFIGURATION][:SPLIT] on the hub or in a folder,
    with the columns that the task reads; private."""
    eval: str | None = None
    """The same columns; treated as PUBLIC: accuracies on it are printed as they are."""
    text: str = "text"
    """Name of the text column."""
    second: str | None = None
    """Column of a second text, where pairs are classified; the template has {second} for it."""
    label: str = "label"
    """Name of the label column; of multiple-choice: the right option, or its number from 0."""
    choices: tuple[str, ...] = ("choices",)
    """Column with a list of options, or one column for each option."""
    prompt: str = "prompt"
    """Column that a completion follows, where the task has no template."""
    completion: str = "completion"
    """Column of completions: a text, or a list of right ones, of which the first is learned."""
    messages: str = "messages"
    """Column of conversations: lists of messages with role and content."""
    unit: str | None = None
    """Column that names the unit of privacy, such as user_id; none: every row is a unit."""
    combine: Literal["mean", "sum"] = "mean"
    """How the rows of a unit become one vector before the clip."""
    population: int | None = None
    """Number of units to account with, where the exact number is not public; none: it is."""
    identity: str | None = None
    """Name under which a registry adds up everything that was spent on this data set."""
    max_length: int = 128
    """Longest text in tokens; the rest of a longer one is cut off (of a prompt: its beginning)."""
    max_completion_length: int = 32
    """Longest completion, or option, in tokens; also how long a generated one may be."""


@dataclass(frozen=True)
class TaskConfig:
    """How a text becomes a prediction."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    kind: Literal[
        "classification", "multiple-choice", "completion", "chat", "language-modelling"
    ] = "classification"
    """What is learned: a label, which option follows, a completion, the assistant's turns, or the
    text itself."""
    readout: Literal["auto", "mask", "continuation", "head", "descriptions"] = "auto"
    """Where labels are read: words at the mask, words as continuation, a classification head,
    or the cosine to encoded descriptions; auto: what the model was made for."""
    template: str = ""
    """Classification: text with {text} and {label}; empty: '{text} It was {label}.' (or '{text}').
    multiple-choice and completion: the prompt, with columns in braces."""
    labels: dict[str, str] = field(default_factory=dict)
    """Label in the data: the words (or description) that stand for it."""
    options: int = 2
    """Of multiple-choice: how many options every row has."""
    objective: str = "loss"
    """What is optimised: loss, the likelihood; accuracy of labels and options; f1 or exact-match of
    written completions; or one's own score, module:function or file.py:function, which takes an
    answer and the list of right ones and returns a number."""
    objective_range: tuple[float, float] = (0.0, 1.0)
    """Least and best value of one's own score; values outside count as these."""


@dataclass(frozen=True)
class MethodConfig:
    """How the model is moved."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Literal["dp-aggzo", "dp-zo", "dpzero", "mezo", "dp-sgd", "dr-encoder"] = "dp-aggzo"
    """dp-sgd is a comparison; dr-encoder is for `hushtune federate`."""
    directions: int | Auto = "auto"
    """K, directions a step; 1 for dp-zo and dpzero."""
    distribution: Literal["auto", "rademacher", "normal", "sphere"] = "auto"
    """Of the directions' entries; auto: rademacher (dpzero: sphere)."""
    estimator: Literal["auto", "two-sided", "one-sided"] = "auto"
    """(ℓ(θ+λz) − ℓ(θ−λz)) / 2λ, or (ℓ(θ+λz) − ℓ(θ)) / λ."""
    perturbation_scale: float | Auto = "auto"
    """λ."""
    clip_norm: float | Auto = "auto"
    """C, the bound on a unit's vector of K loss slopes; of its update with dr-encoder."""
    update: Literal["normalised", "sgd"] = "normalised"
    """normalised: steps in units of what is released; sgd: θ ← θ − η Σ g z / K as it stands."""
    learning_rate: float | Auto = "auto"
    """normalised: roughly how many nats a run may move a typical loss, 1 is large; sgd: η."""
    optimizer: Literal["auto", "adam", "adamw", "sgd"] = "auto"
    """Of dp-sgd (auto: adamw) and dr-encoder (auto: adam) alone."""
    schedule: Literal["auto", "constant", "linear"] = "auto"
    """Of the learning rate over the planned steps; auto: linear, down to zero."""
    steps: int | Auto = "auto"
    """T."""
    batch: float | Auto = "auto"
    """Expected number of units a step."""
    micro_batch_tokens: int | Auto = "auto"
    """Tokens in a forward pass at most; auto: as many as pay and fit into a quarter of the free
    memory when the run begins."""


@dataclass(frozen=True)
class PrivacyConfig:
    """The guarantee that is asked for."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    epsilon: float | None = None
    delta: float | Auto = "auto"
    """auto: 1e-5 or, if less, 0.1 / number of units for gaussian; 0 for laplace."""
    mechanism: Literal["gaussian", "laplace", "none"] = "gaussian"
    """laplace gives pure ε; none goes with method mezo only."""
    adjacency: Literal["add-or-remove-one", "replace-one"] = "add-or-remove-one"
    registry: str | None = None
    """File that adds up all runs on the data set data.identity; none: nobody adds them up."""


@dataclass(frozen=True)
class Config:
    """A run, complete."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    federated: FederatedConfig = field(default_factory=FederatedConfig)
    output: str = "runs/run"
    """The run folder."""
    seed: int = 0
    """Public: directions and new parameters only. Noise and sampling have no seed."""
    eval_every: int = 0
    """Steps between evaluations on the public evaluation data; 0: before and after only."""

    @property
    def protected(self) -> str:
        """What the guarantee is about: "example", the unit's column, or "client"."""
        return "client" if self.federated.by_client else self.data.unit or "example"

    def public_units(self, units: int) -> int:
        """The number of units as it is published, where the data has so many."""
        if self.federated.by_client:
            return self.federated.clients
        return units if self.data.population is None else self.data.population

    def to_json(self) -> dict[str, Any]:
        """Nested plain values."""
        return dataclasses.asdict(self)


def differences(one: Config, other: Config) -> list[str]:
    """Names of the settings in which two configurations differ."""
    flat_one, flat_other = _flat("", one.to_json()), _flat("", other.to_json())
    keys = flat_one.keys() | flat_other.keys()
    different = {key for key in keys if flat_one.get(key) != flat_other.get(key)}
    # The order of the labels is their order in the model.
    if not different and list(one.task.labels) != list(other.task.labels):
        different.add("task.labels")
    return sorted(different)


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: list(value) if isinstance(value, tuple) else value}
    pieces = [_flat(f"{prefix}.{key}" if prefix else key, item) for key, item in value.items()]
    return {key: item for piece in pieces for key, item in piece.items()}
