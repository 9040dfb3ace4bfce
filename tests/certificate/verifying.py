"""Finished runs to verify, and the command that verifies them."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import write_reviews

from hushtune.cli import main

LABELS = ["--task.labels", "negative", "it was terrible", "positive", "it was great"]

_LAPLACE = ["--privacy.epsilon", "4", "--privacy.mechanism", "laplace"]


class Verify:
    """Runs `hushtune verify` in this process; what it says, it says in one line."""

    def __init__(self, capsys) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path, code: int = 0) -> tuple[str, str]:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["verify", *map(str, arguments)])
        shown = self._capsys.readouterr()
        assert (exit_.value.code or 0) == code, shown
        assert len(shown.err.splitlines()) == (1 if code else 0)
        return shown.out, shown.err.removeprefix("hushtune verify: ")

    def checks(self, *arguments: str | Path, code: int = 0) -> dict[str, tuple[str, str]]:
        """(status, evidence) by the check's name."""
        out, complaint = self._json(*arguments, code=code)
        assert complaint == ""
        assert out["verified"] is (code == 0)
        return {check["name"]: (check["status"], check["evidence"]) for check in out["checks"]}

    def failed(self, *arguments: str | Path) -> dict[str, str]:
        """Evidence by name of the checks that failed; the same ones are named in one line."""
        checks = self.checks(*arguments, code=1)
        failed = {name: words for name, (status, words) in checks.items() if status == "failed"}
        line = self(*arguments, code=1)[1]
        assert line == "; ".join(f"{name}: {words}" for name, words in failed.items()) + ".\n"
        return failed

    def _json(self, *arguments: str | Path, code: int) -> tuple[dict, str]:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["verify", *map(str, arguments), "--json"])
        shown = self._capsys.readouterr()
        assert (exit_.value.code or 0) == code, shown
        (line,) = shown.out.splitlines()
        return json.loads(line), shown.err


class Runs:
    """Finished runs by kind: trained once for all tests, and copied to be damaged."""

    _families: ClassVar = {"head": "encoder", "lora": "opt", "mezo": "encoder"}
    _flags: ClassVar = {
        "head": ["--privacy.epsilon", "4"],
        "lora": ["--model.tune", "lora", "--data.unit", "user_id", *_LAPLACE],
        "mezo": ["--method.name", "mezo", "--privacy", "none"],
    }

    def __init__(self, tiny: Callable[[str], str], root: Path, folder: Path) -> None:
        self._tiny = tiny
        self._root = root
        self._folder = folder

    def finished(self, kind: str) -> Path:
        """The folder of a finished run, to be left as it is."""
        return _train(self._tiny(self._families[kind]), self._root / kind, *self._flags[kind])

    def copy(self, kind: str) -> Path:
        """A folder that a test may damage."""
        return Path(shutil.copytree(self.finished(kind), self._folder / kind))


@functools.cache
def _train(model: str, folder: Path, *flags: str) -> Path:
    folder.mkdir(parents=True)
    data = write_reviews(folder / "train.jsonl", 60)
    arguments = ["--model.name", model, "--data.train", data, "--output", str(folder / "run")]
    arguments += ["--method.steps", "5", "--method.directions", "4", "--method.batch", "12"]
    arguments += ["--data.max-length", "32", *LABELS, *flags, "--json"]
    with pytest.raises(SystemExit, match="0"):
        main(["train", *arguments])
    Path(data).unlink()  # nothing of this needs it
    return folder / "run"


def head_of(run: Path) -> str:
    """The hash of the last line of a run's ledger."""
    return json.loads((run / "ledger.jsonl").read_bytes().splitlines()[-1])["hash"]


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a file of JSON."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def has_certificate(folder: Path) -> bool:
    """Whether any of a certificate's files is there."""
    return any(folder.glob("certificate.*"))


class Page(HTMLParser):
    """What is on a page of HTML, as far as tests ask.

    Attributes:
        elements: (tag, attributes) in order.
        blocks: the texts of preformatted blocks.
        text: all text outside of style sheets, spaces made one.
        style: the style sheets.
    """

    _void = ("meta", "br", "link", "img")

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[str] = []
        self.style = ""
        self._texts: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self._void:
            self._open.append(tag)
        if tag == "pre":
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "elements must be nested"

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            self.style += data
            return
        self._texts.append(data)
        if "pre" in self._open:
            self.blocks[-1] += data
