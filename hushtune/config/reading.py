"""Read a configuration from YAML 1.2 or plain values, and refuse what has no such key or type.

In YAML 1.2 `1e-5` is a number and `no` is text. Nothing is converted silently: a number in quotes
is text, and `yes` is no boolean.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import functools
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from hushtune.config.settings import Config, ConfigError

#: What pydantic calls a type: what a person calls it.
_TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "labels with their words",
}


def load(path: str | Path) -> Config:
    """Read a run file.

    Raises:
        ConfigError: one line that names file and key and says what is accepted.
    """
    return from_values(load_values(path), source=str(path))


def load_values(path: str | Path) -> dict[str, Any]:
    """The sections of a file, as they stand there.

    Raises:
        ConfigError: one line that names the file.
    """
    try:
        values = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a YAML file.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected text in UTF-8.") from None
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not YAML ({_one_line(error.problem)}).") from None
    except YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({_one_line(error)}).") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys such as model, data, task and privacy.")
    return values


def from_values(values: dict[str, Any], *, source: str = "config") -> Config:
    """A config from nested plain values, as YAML or the ledger's header hold them.

    Raises:
        ConfigError: one line that names `source` and key and says what is accepted.
    """
    try:
        values = json.loads(json.dumps(values, default=_plain))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source}: expected text, numbers and lists only ({error}).") from None
    if values.get("privacy") == "none":
        values["privacy"] = {"mechanism": "none"}
    task = values.get("task")
    if isinstance(task, dict) and isinstance(task.get("labels"), list):
        task["labels"] = _labels_from_list(task["labels"], source)
    try:
        # JSON mode: arrays become tuples, and nothing else is converted.
        return _adapter().validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error)}") from None


@functools.cache
def _adapter() -> TypeAdapter[Config]:
    """Made once: making it takes longer than a hundred readings."""
    return TypeAdapter(Config)


def _plain(value: object) -> str:
    """Dates are text in YAML 1.2, whatever the reader makes of them."""
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise TypeError(f"not {type(value).__name__}")


def _labels_from_list(labels: list[Any], source: str) -> dict[str, str]:
    """Labels that are their own words."""
    # A number or a boolean is spelled as in JSON, which is how the data spells it.
    names = [label if isinstance(label, str) else json.dumps(label) for label in labels]
    plain = all(isinstance(label, str | int | float) for label in labels)
    if not plain or len({*names}) < len(names):
        raise ConfigError(
            f"{source}: task.labels: {json.dumps(labels, ensure_ascii=False)} is not accepted; it "
            "must be different labels, or labels with their words."
        )
    return dict(zip(names, names, strict=True))


def _first_problem(error: ValidationError) -> str:
    """One line for the first problem, with the key as a person wrote it."""
    problem = error.errors()[0]
    if problem["type"] == "unexpected_keyword_argument":
        *parents, key = [str(part) for part in problem["loc"]]
        known = _keys_at(parents)
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        accepted = ", ".join(known)
        return f"unknown key {'.'.join([*parents, key])}; {hint}accepted: {accepted}."
    path = _key_of(problem["loc"])
    same_key = [each for each in error.errors() if _key_of(each["loc"]) == path]
    wanted = " or ".join(sorted({_wanted(each, path) for each in same_key}))
    shown = json.dumps(problem["input"], ensure_ascii=False)
    return f"{'.'.join(path)}: {shown} is not accepted; it must be {wanted}."


def _key_of(location: tuple[Any, ...]) -> list[str]:
    """The key that a location is in, without pydantic's names for the members of a union."""
    value: Any = Config()
    path: list[str] = []
    for part in map(str, location):
        if isinstance(value, dict | tuple):
            return [str(part) for part in location]
        if not dataclasses.is_dataclass(value):
            break
        value = getattr(value, part)
        path.append(part)
    return path


def _wanted(problem: Any, path: list[str]) -> str:
    if problem["type"] == "dataclass_type":
        none = "none, or " if path == ["privacy"] else ""
        return f"{none}a section with the keys {', '.join(_keys_at(path))}"
    if problem["type"] == "literal_error":
        return str(problem["ctx"]["expected"])
    message = str(problem["msg"]).removeprefix("Input should be ")
    return _TYPES.get(problem["type"]) or message


def _keys_at(path: list[str]) -> list[str]:
    value: Any = Config()
    for name in path:
        value = getattr(value, name)
    return [item.name for item in dataclasses.fields(value)]


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
