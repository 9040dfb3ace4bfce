"""Finished runs to evaluate, trained once for all tests and copied, and the commands for it."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_reviews

from hushtune.cli import main

_KINDS = {
    "classification": (
        "encoder",
        ["--task.labels", "negative", "it was terrible", "positive", "it was great"],
    ),
    "completion": (
        "opt",
        ["--task.kind", "completion", "--data.prompt", "text", "--data.completion", "label"],
    ),
    "language-modelling": ("opt", ["--task.kind", "language-modelling"]),
}


class Runs:
    """Run folders by kind of task; the training data has 60 rows of 21 users."""

    def __init__(self, tiny: Callable[[str], str], root: Path, folder: Path) -> None:
        self._tiny = tiny
        self._root = root
        self._folder = folder

    def copy(self, kind: str = "classification", *flags: str) -> Path:
        """A finished run that a test may charge."""
        flags = flags or ("--privacy.epsilon", "4")
        family, _ = _KINDS[kind]
        finished = _train(self._tiny(family), self._root, kind, *flags)
        return Path(shutil.copytree(finished, self._folder / "run"))


@functools.cache
def _train(model: str, root: Path, kind: str, *flags: str) -> Path:
    folder = root / "-".join([kind, *flags]).replace("/", "_")
    folder.mkdir(parents=True)
    arguments = ["--model.name", model, "--output", str(folder / "run"), *_KINDS[kind][1]]
    arguments += ["--data.train", write_reviews(folder / "train.jsonl", 60)]
    arguments += ["--method.steps", "2", "--method.directions", "2", "--method.batch", "12"]
    arguments += ["--data.max-completion-length", "8"]
    with pytest.raises(SystemExit, match="0"):
        main(["train", *arguments, "--data.max-length", "32", *flags, "--json"])
    return folder / "run"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


class Command:
    """Runs `hushtune …` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object, code: int = 0) -> tuple[str, str]:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(list(map(str, arguments)))
        shown = self._capsys.readouterr()
        assert (exit_.value.code or 0) == code, shown
        return shown.out, shown.err

    def json(self, *arguments: object) -> dict[str, Any]:
        return json.loads(self(*arguments, "--json")[0])

    def refused(self, *arguments: object, code: int = 1) -> str:
        """The one line that says why."""
        out, err = self(*arguments, code=code)
        assert out == ""
        (line,) = err.splitlines()
        return line
