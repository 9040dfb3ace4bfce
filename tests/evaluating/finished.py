"""Finished runs to evaluate, trained once for all tests and copied, and the commands for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import write_reviews

from hushtune.cli import main
from hushtune.privacy import evaluations
from hushtune.privacy.evaluations import Call

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
    """Run folders by kind of task."""

    def __init__(self, tiny: Any, root: Path) -> None:
        self._tiny = tiny
        self._root = root
        self.train = write_reviews(root / "train.jsonl", 60)

    def copy(self, kind: str, folder: Path, *flags: str) -> Path:
        """A finished run that a test may charge."""
        name = "-".join([kind, *(flag.strip("-") for flag in flags)]).replace("/", "_")
        finished = self._root / name
        if not finished.exists():
            family, task = _KINDS[kind]
            chosen = flags if "--privacy" in flags else ("--privacy.epsilon", "4", *flags)
            arguments = ["--model.name", self._tiny(family), "--data.train", self.train, *task]
            arguments += ["--method.steps", "2", "--method.directions", "2", "--method.batch", "12"]
            arguments += ["--data.max-length", "32", "--output", str(finished), *chosen, "--json"]
            with pytest.raises(SystemExit, match="0"):
                main(["train", *arguments])
        return Path(shutil.copytree(finished, folder / "run"))


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def last_call(run: Path) -> Call:
    return evaluations.read(run).calls[-1]


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
