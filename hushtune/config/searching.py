"""A search's file: that of a run, with a section `search` that says what to choose from.

    search:
      over: {method.learning_rate: [0.3, 1, 3], method.clip_norm: [20, 40]}    # every combination
      distribution: poisson
      expected_runs: 5
      score: public                     # or private: noised, on the training data

or, in place of the grid, a list of configurations: `over: [{method.learning_rate: 1}, …]`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hushtune.config.checks import check, require
from hushtune.config.reading import from_values, load_values
from hushtune.config.settings import Config, ConfigError, MethodConfig
from hushtune.privacy.accounting.stopping import DISTRIBUTIONS, FEWEST_RUNS, MOST_RUNS

_SETTABLE = [f"method.{item.name}" for item in dataclasses.fields(MethodConfig)]


@dataclass(frozen=True)
class SearchConfig:
    """What a search chooses from, and how often it runs.

    Attributes:
        over: the configurations, each by the settings in which it differs from the file's.
        distribution: of the secret number of runs: poisson, logarithmic or geometric.
        expected_runs: its mean.
        score: public, on `data.eval`, or private, on `data.train` with noise that the search's ε
            covers.
        score_noise: of a private score, in units, each of which adds from −1 to 1; auto: a fiftieth
            of the number of units, and at least 10.
    """

    over: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    distribution: str = "poisson"
    expected_runs: float = 5.0
    score: str = "public"
    score_noise: float | str = "auto"

    def to_json(self) -> dict[str, Any]:
        """Nested plain values."""
        return dataclasses.asdict(self)


def load_search(path: str | Path) -> tuple[Config, SearchConfig]:
    """Read a search's file: the configuration that all runs share, and the search.

    Raises:
        ConfigError: one line that names file and key and says what is accepted.
    """
    values = load_values(path)
    # As text, what YAML has and JSON has not.
    section = json.loads(json.dumps(values.pop("search", None), default=str))
    return from_values(values, source=str(path)), _search(section, str(path))


def configurations(config: Config, search: SearchConfig) -> list[Config]:
    """The configurations that a search chooses from, each checked.

    Raises:
        ConfigError: one line that names the key and says what is accepted.
    """
    _check_shared(config, search)
    found = []
    for settings in search.over:
        values = config.to_json()
        for key, value in settings.items():
            values["method"][key.removeprefix("method.")] = value
        each = from_values(values, source="search.over")
        name, accepted = each.method.name, "dp-aggzo, dp-zo or dpzero in a search"
        require(name in ("dp-aggzo", "dp-zo", "dpzero"), "method.name", name, accepted)
        check(each)
        # The same one twice would be drawn twice as often, which a person hardly means.
        require(each not in found, "search.over", settings, "different configurations")
        found.append(each)
    return found


def _check_shared(config: Config, search: SearchConfig) -> None:
    """Refuse what a search does not account for, or would have to show."""
    privacy = config.privacy
    mechanism = "gaussian in a search, whose ε is accounted for Gaussian noise alone"
    require(privacy.mechanism == "gaussian", "privacy.mechanism", privacy.mechanism, mechanism)
    adjacency = "add-or-remove-one in a search; its accountant has no other"
    known = privacy.adjacency == "add-or-remove-one"
    require(known, "privacy.adjacency", privacy.adjacency, adjacency)
    public = "public data, by which a search chooses, unless search.score is private"
    there = config.data.eval is not None or search.score == "private"
    require(there, "data.eval", config.data.eval, public)
    shown = "0 in a search, which shows nothing before it ends"
    require(config.eval_every == 0, "eval_every", config.eval_every, shown)


def _search(section: Any, source: str) -> SearchConfig:
    known = [item.name for item in dataclasses.fields(SearchConfig)]
    if not isinstance(section, dict) or not section.keys() <= {*known} or "over" not in section:
        raise ConfigError(
            f"{source}: search: expected a section with over and, if wanted, "
            f"{' and '.join(known[1:])}."
        )
    values = SearchConfig(**{**section, "over": _over(section["over"], source)})
    require(
        values.distribution in DISTRIBUTIONS,
        f"{source}: search.distribution",
        values.distribution,
        " or ".join(DISTRIBUTIONS),
    )
    runs = values.expected_runs
    require(
        type(runs) in (int, float) and FEWEST_RUNS <= runs <= MOST_RUNS,
        f"{source}: search.expected_runs",
        runs,
        f"a number from {FEWEST_RUNS} to {MOST_RUNS}",
    )
    key = f"{source}: search.score"
    require(values.score in ("public", "private"), key, values.score, "public or private")
    noise = values.score_noise
    accepted = "auto, or a number from 1 to 1e6"
    holds = noise == "auto" or (not isinstance(noise, str | bool) and 1 <= noise <= 1e6)
    require(holds, f"{source}: search.score_noise", noise, accepted)
    return dataclasses.replace(values, expected_runs=float(runs))


def _over(given: Any, source: str) -> tuple[dict[str, Any], ...]:
    """The configurations of a grid or a list."""
    accepted = (
        "settings of method with their values, such as {method.learning_rate: [0.3, 1]}, or a list "
        "of configurations"
    )
    key = f"{source}: search.over"
    if isinstance(given, dict) and given and all(isinstance(each, list) for each in given.values()):
        given = [
            dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())
        ]
    is_list = isinstance(given, list) and bool(given) and all(isinstance(g, dict) for g in given)
    require(is_list, key, given, accepted)
    for name in dict.fromkeys(name for settings in given for name in settings):
        require(name in _SETTABLE, key, name, "one of " + ", ".join(_SETTABLE))
    return tuple(given)
