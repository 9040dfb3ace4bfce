"""Runs a command as a machine would, in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hushtune.cli import main


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What a successful command prints with --json."""
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--json"])
    said = capsys.readouterr()
    assert not exit_.value.code, said.err
    return json.loads(said.out)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command prints, without the command's name."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    said = capsys.readouterr()
    assert exit_.value.code == 1, said.err
    (line,) = said.err.splitlines()
    return line.removeprefix(f"hushtune {arguments[0]}: ")
