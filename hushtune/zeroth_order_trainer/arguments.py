"""The settings of a `ZerothOrderTrainer`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from hushtune import config as configuration
from hushtune.config import Config, ConfigError
from hushtune.zeroth_order_trainer.refused import RefusesOthers

#: Below this, a learning rate in nats was meant for gradients.
_LEAST_LEARNING_RATE = 1e-3

#: What the keys of a run's configuration are called here.
_OWN_NAMES = {
    "data.unit": "unit",
    "data.combine": "combine",
    "data.population": "population",
    "data.identity": "identity",
    "method.name": "method",
    "method.directions": "directions",
    "method.distribution": "distribution",
    "method.estimator": "estimator",
    "method.perturbation_scale": "perturbation_scale",
    "method.clip_norm": "clip_norm",
    "method.update": "update",
    "method.learning_rate": "learning_rate",
    "method.schedule": "lr_scheduler_type",
    "method.steps": "max_steps",
    "method.batch": "batch",
    "method.micro_batch_tokens": "micro_batch_tokens",
    "privacy.epsilon": "epsilon",
    "privacy.delta": "delta",
    "privacy.mechanism": "mechanism",
    "privacy.adjacency": "adjacency",
    "privacy.registry": "registry",
    "seed": "seed",
    "eval_every": "eval_steps",
}


@dataclass(frozen=True)
class ZerothOrderArguments(RefusesOthers):
    """Settings of a `ZerothOrderTrainer`: some of `transformers.TrainingArguments`, and its own.

    An argument of `TrainingArguments` that would be unsafe or mean nothing is refused with a line
    that says what to use instead. "auto" is found on public examples, before the first step.

    Raises:
        ConfigError: one line that names the argument and says what is accepted.
    """

    output_dir: str = "trainer_output"
    """The folder for the ledger, the model, `privacy.json` and checkpoints."""
    _: KW_ONLY

    # The guarantee.
    epsilon: float
    """ε."""
    delta: float | Literal["auto"] = "auto"
    """δ; auto: 1e-5 or, if less, 0.1 / number of units, and 0 for laplace."""
    mechanism: Literal["gaussian", "laplace"] = "gaussian"
    """laplace gives pure ε."""
    adjacency: Literal["add-or-remove-one", "replace-one"] = "add-or-remove-one"
    """Which data sets are neighbours, by unit."""
    unit: str | None = None
    """Column of the training data that names the unit of privacy, such as user_id; none: a row."""
    combine: Literal["mean", "sum"] = "mean"
    """How the rows of a unit become one vector before the clip."""
    population: int | None = None
    """Number of units to account with, where the exact number is not public; none: it is."""
    registry: str | None = None
    """File that adds up all runs on the data set `identity`; none: nobody adds them up."""
    identity: str | None = None
    """The data set's name in the registry."""

    # The method.
    method: Literal["dp-aggzo", "dp-zo", "dpzero"] = "dp-aggzo"
    directions: int | Literal["auto"] = "auto"
    """K, directions a step; 1 for dp-zo and dpzero."""
    max_steps: int | Literal["auto"] = "auto"
    """T, the steps that noise is planned for."""
    batch: float | Literal["auto"] = "auto"
    """Expected number of units a step."""
    learning_rate: float | Literal["auto"] = "auto"
    """normalised: roughly how many nats a run may move a typical loss, 1 is large; sgd: η."""
    lr_scheduler_type: Literal["linear", "constant"] = "linear"
    """Of the learning rate over the planned steps; linear: down to zero."""
    update: Literal["normalised", "sgd"] = "normalised"
    """normalised: steps in units of what is released; sgd: θ ← θ − η Σ g z / K as it stands."""
    clip_norm: float | Literal["auto"] = "auto"
    """C, the bound on a unit's vector of K loss slopes."""
    perturbation_scale: float | Literal["auto"] = "auto"
    """λ."""
    distribution: Literal["auto", "rademacher", "normal", "sphere"] = "auto"
    """Of the directions' entries."""
    estimator: Literal["auto", "two-sided", "one-sided"] = "auto"
    """(ℓ(θ+λz) − ℓ(θ−λz)) / 2λ, or (ℓ(θ+λz) − ℓ(θ)) / λ."""
    seed: int = 42
    """Public: directions and made-up examples. Noise and sampling have no seed."""

    # The shapes of forward passes.
    max_length: int | Literal["auto"] = "auto"
    """Longest row in tokens; auto: 128, or what the model has positions for if that is less."""
    micro_batch_tokens: int | Literal["auto"] = "auto"
    """Tokens in a forward pass at most; auto: as many as pay and fit into memory."""
    remove_unused_columns: bool = True
    """Whether the collator gets only columns that the model's forward has a parameter for."""
    use_cpu: bool = False
    """Whether to leave a GPU unused."""

    # Evaluating on public data, and saving.
    eval_strategy: Literal["no", "steps"] = "no"
    eval_steps: int | None = None
    """Steps between evaluations, and before the one at the end."""
    per_device_eval_batch_size: int = 8
    metric_for_best_model: str | None = None
    """Metric that callbacks such as EarlyStoppingCallback watch."""
    greater_is_better: bool | None = None
    """Of that metric; none: unless its name ends in loss."""
    save_strategy: Literal["no", "steps"] = "no"
    """steps: the model as it then is in `output_dir`/checkpoint-STEP, beside the ledger."""
    save_steps: int = 500
    disable_tqdm: bool = False
    """Whether to show no progress."""
    report_to: str = "none"
    """Nothing is reported on its own; give callbacks."""
    push_to_hub: bool = False
    """Whether `train()` saves and uploads the model at its end."""
    hub_model_id: str | None = None
    """Repository; none: named as output_dir is."""
    hub_token: str | None = dataclasses.field(default=None, repr=False)
    hub_private_repo: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_dir", str(self.output_dir))
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            better = not self.metric_for_best_model.endswith("loss")
            object.__setattr__(self, "greater_is_better", better)
        self._require(self.unit != "example", "unit", "a column of another name, or none for rows")
        self._require(self.report_to == "none", "report_to", "none; give callbacks")
        for name, accepted in {
            "eval_strategy": ("no", "steps"),
            "save_strategy": ("no", "steps"),
            "lr_scheduler_type": ("linear", "constant"),
            "method": ("dp-aggzo", "dp-zo", "dpzero"),
        }.items():
            self._require(getattr(self, name) in accepted, name, " or ".join(accepted))
        for name in ("eval_steps", "save_steps", "per_device_eval_batch_size", "population"):
            value = getattr(self, name)
            self._require(value is None or value >= 1, name, "at least 1")
        self._require(
            (self.eval_strategy == "steps") == (self.eval_steps is not None),
            "eval_steps",
            "given with eval_strategy steps, and only then",
        )
        self._require(self.max_length == "auto" or self.max_length >= 8, "max_length", "at least 8")
        self.to_config()
        self._require(
            self.update == "sgd"
            or self.learning_rate == "auto"
            or self.learning_rate >= _LEAST_LEARNING_RATE,
            "learning_rate",
            f"auto, or at least {_LEAST_LEARNING_RATE} (in nats a run; learning rates of gradients "
            "do not carry over)",
        )

    def to_config(self, **data: Any) -> Config:
        """The run's configuration, as the ledger's header holds it.

        Args:
            data: further keys of its section `data`.
        """
        values: dict[str, Any] = {"output": self.output_dir, "eval_every": self.eval_steps or 0}
        for dotted, own in _OWN_NAMES.items():
            section, _, key = dotted.rpartition(".")
            if section:
                values.setdefault(section, {})[key] = getattr(self, own)
        values["data"] |= data
        values["seed"] = self.seed
        with own_names():
            config = configuration.from_values(values, source=type(self).__name__)
            configuration.check_training(config)
        return config

    @property
    def load_best_model_at_end(self) -> bool:
        """False; callbacks ask for it."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """All values but for the token."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if name != "hub_token"}

    def to_sanitized_dict(self) -> dict[str, Any]:
        """`to_dict`, as callbacks of transformers ask for it."""
        return self.to_dict()

    def to_json_string(self) -> str:
        """`to_dict` in JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def _require(self, holds: bool, name: str, accepted: str) -> None:
        if not holds:
            shown = json.dumps(getattr(self, name), default=str)
            raise ConfigError(f"{name}: {shown} is not accepted; it must be {accepted}.")


@contextlib.contextmanager
def own_names() -> Iterator[None]:
    """Errors within name an argument as `ZerothOrderArguments` does."""
    try:
        yield
    except ConfigError as error:
        message = str(error)
    else:
        return
    for dotted, own in _OWN_NAMES.items():
        message = re.sub(rf"(?<![\w.]){re.escape(dotted)}(?![\w.]*\w)", own, message)
    raise ConfigError(message)
