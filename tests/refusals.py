"""Runs `hushtune train` on something bad; what it says has to be one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hushtune.cli import main

GOOD_ROWS = '{"text": "a good film", "label": "positive", "user_id": "ann"}\n' * 20


class Refusal:
    """Hands back the one line that a refused training prints, without the command's name."""

    def __init__(self, arguments: list[str], folder: Path, capsys) -> None:
        self._arguments = arguments
        self._capsys = capsys
        self.folder = folder

    def __call__(self, *flags: str, code: int = 1) -> str:
        with pytest.raises(SystemExit) as exit_:
            main(["train", *self._arguments, *flags])
        shown = self._capsys.readouterr()
        assert exit_.value.code == code, shown.err
        assert shown.out == ""
        assert not list(self.folder.rglob("ledger.jsonl"))
        (line,) = shown.err.splitlines()
        assert line.startswith("hushtune train: ")
        return line.removeprefix("hushtune train: ")

    def of_data(self, name: str, content: str | bytes, *flags: str) -> str:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        line = self("--data.train", str(path), *flags)
        assert line.startswith(str(path))
        return line.removeprefix(str(path))
