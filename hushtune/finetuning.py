"""From Python: one call that tunes a model, and what came of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from hushtune import config as configuration
from hushtune import run as runs
from hushtune.comparison import run as comparison
from hushtune.comparison.folder import read_header
from hushtune.config import Config, ConfigError
from hushtune.evaluating.private import Terms, evaluate_on_private
from hushtune.evaluating.public import evaluate_on_public
from hushtune.evaluation import GivenRows
from hushtune.models.restore import TunedModel, load_tuned
from hushtune.report.terminal import TerminalProgress
from hushtune.tasks.columns import column_names, with_kind
from hushtune.tasks.files import numbered, read_rows

#: Rows: as a list of dictionaries, a `datasets.Dataset`, or a pandas `DataFrame`.
Rows = Any

#: What stands in the configuration for rows in memory.
_IN_MEMORY = {"train": "rows in memory", "eval": "evaluation rows in memory"}


@dataclass(frozen=True)
class Result:
    """A tuned model with its guarantee.

    Attributes:
        folder: the run folder, as `hushtune train` writes it.
        tuned: the model, ready to be asked.
        guarantee: ε with all its terms, as in `privacy.json`.
        summary: metrics on public data, seconds and memory, as in `summary.json`.
    """

    folder: Path
    tuned: TunedModel
    guarantee: dict[str, Any]
    summary: dict[str, Any]

    @property
    def epsilon(self) -> float | None:
        """ε of the whole run; None without privacy."""
        return self.guarantee["epsilon"]

    @property
    def model(self) -> Any:
        """The tuned network, of transformers or PEFT."""
        return self.tuned.model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.tuned.tokenizer

    def evaluate(self, data: str | Rows) -> dict[str, Any]:
        """Exact metrics on data that is PUBLIC; see `evaluate_on_public`."""
        return evaluate_on_public(self.folder, *_named(data))

    def evaluate_privately(
        self, data: str | Rows, *, epsilon: float, **terms: Any
    ) -> dict[str, Any]:
        """Noised metrics on data that is private, charged; see `evaluate_on_private`.

        Args:
            data: a file, or rows.
            epsilon: ε of this call alone.
            terms: `budget`, `unit` and the others of `hushtune.evaluating.private.Terms`.
        """
        name, given = _named(data)
        return evaluate_on_private(self.folder, name, Terms(epsilon=epsilon, **terms), given=given)

    def predict(self, texts: Sequence[Any]) -> list[str]:
        """What the model answers; see `TunedModel.predict`."""
        return self.tuned.predict(texts)

    def generate(
        self, prompts: Iterable[Mapping[str, Any]] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """Synthetic rows to share, with the run's guarantee; see `TunedModel.generate`."""
        return self.tuned.generate(prompts, **options)


def finetune(
    *,
    model: str | Mapping[str, Any],
    data: str | Mapping[str, Any] | Rows,
    privacy: float | str | Mapping[str, Any],
    task: Mapping[str, Any] | None = None,
    method: Mapping[str, Any] | None = None,
    output: str | Path = "runs/run",
    seed: int = 0,
    eval_every: int = 0,
    quiet: bool = False,
) -> Result:
    """Tune a model on private text, or go on where an interrupted call with these arguments ended.

    The sections are those of a run file, with the same keys, defaults and meanings:

        hushtune.finetune(
            model="roberta-large",
            data={"train": "tickets.jsonl", "unit": "user_id"},
            task={"labels": {"billing": "money", "outage": "electricity"}},
            privacy=2.0,
        ).predict(["The lights went out twice today."])

    Args:
        model: a folder or a name on the hub, or a section.
        data: the private data: a file, rows, or a section whose `train` and `eval` may be rows.
        privacy: ε, "none", or a section.
        task: a section; none: of the kind that the names of the data's columns tell, which cannot
            be classification, since labels are named here and not read from private data.
        method: a section.
        output: the run folder.
        seed: the public seed.
        eval_every: steps between evaluations.
        quiet: print nothing.

    Raises:
        ConfigError, DataError, CouplingError, ProbeError, ValueError: what cannot be used, before
            any budget is spent.
        LedgerError: the folder belongs to another run or is in use.
    """
    section, given = _data_section(data)
    config = configuration.from_values(
        {
            "model": {"name": model} if isinstance(model, str) else dict(model),
            "data": section,
            "task": dict(task or {}),
            "method": dict(method or {}),
            "privacy": {"epsilon": float(privacy)} if isinstance(privacy, int | float) else privacy,
            "output": str(output),
            "seed": seed,
            "eval_every": eval_every,
        },
        source="finetune",
    )
    if task is None:
        private = config.data.train
        rows = numbered(given[private], private) if private in given else read_rows(private)
        config = with_kind(config, column_names(rows, private))
    summary = train(_of_mezo(config), TerminalProgress(quiet=quiet), given=given)
    folder = Path(config.output)
    guarantee = json.loads((folder / "privacy.json").read_text(encoding="utf-8"))
    return Result(folder, load_tuned(folder, read_header(folder)), guarantee, summary)


def train(
    config: Config, progress: TerminalProgress, *, given: GivenRows | None = None
) -> dict[str, Any]:
    """Train by the method of the configuration, or go on; returns the summary."""
    by_method = comparison.train if config.method.name == "dp-sgd" else runs.train
    return by_method(config, progress, given=given)


def _of_mezo(config: Config) -> Config:
    """Without privacy there is one method, so nobody need name it."""
    if config.privacy.mechanism != "none" or config.method.name != "dp-aggzo":
        return config
    return dataclasses.replace(config, method=dataclasses.replace(config.method, name="mezo"))


def _data_section(data: Any) -> tuple[dict[str, Any], dict[str, Iterable[Mapping[str, Any]]]]:
    """The configuration's section, and rows in memory by what stands there for them."""
    section = dict(data) if isinstance(data, Mapping) else {"train": data}
    given = {}
    rows: dict[int, str] = {}
    for key, name in _IN_MEMORY.items():
        value = section.get(key)
        if not isinstance(value, str | NoneType):
            # The same rows have the same name, so that they are refused as the same file is.
            section[key] = rows.setdefault(id(value), name)
            if section[key] == name:
                given[name] = _rows(key, value)
    return section, given


def _named(data: str | Rows) -> tuple[str, GivenRows]:
    """The name of evaluation data, and the rows in memory that it stands for."""
    if isinstance(data, str):
        return data, {}
    return _IN_MEMORY["eval"], {_IN_MEMORY["eval"]: _rows("eval", data)}


def _rows(key: str, value: Any) -> list[Mapping[str, Any]]:
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # a DataFrame
        value = [
            {name: _plain(cell) for name, cell in row.items()} for row in value.to_dict("records")
        ]
    try:
        rows = list(value)
    except TypeError:
        rows = None
    if rows is None or not all(isinstance(row, Mapping) for row in rows):
        raise ConfigError(
            f"data.{key}: {type(value).__name__} is not accepted; it must be a file, a list of "
            "dictionaries, a Dataset or a DataFrame."
        )
    return rows


def _plain(cell: Any) -> Any:
    """A cell of a DataFrame as JSON would have it: lists for arrays, None for what is missing."""
    if type(cell).__name__ in ("NAType", "NaTType"):
        return None
    return cell.tolist() if hasattr(cell, "tolist") else cell
