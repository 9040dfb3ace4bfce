"""A run from the command line, from beginning to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hushtune.cli import main


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return exit_.value.code or 0


def test_a_run_leaves_everything_that_was_promised(run_arguments, tmp_path: Path, capsys):
    assert command("train", *run_arguments, "--json") == 0
    run = tmp_path / "run"
    for name in ("config.yaml", "ledger.jsonl", "privacy.json", "metrics.jsonl", "summary.json"):
        assert (run / name).exists(), name
    guarantee = json.loads((run / "privacy.json").read_text())
    wanted = {
        "epsilon",
        "delta",
        "unit",
        "adjacency",
        "mechanism",
        "noise_multiplier",
        "clip",
        "sampling_probability",
        "steps",
        "directions",
        "accountant",
        "accountant_version",
        "exclusions",
    }
    assert wanted <= guarantee.keys()
    assert 3.9 < guarantee["epsilon"] <= 4


def test_replay_makes_the_same_model(run_arguments, tmp_path: Path):
    assert command("train", *run_arguments, "--json") == 0
    run, again = tmp_path / "run", tmp_path / "again"
    assert command("replay", str(run / "ledger.jsonl"), "--out", str(again), "--json") == 0
    files = sorted(path.relative_to(run) for path in (run / "model").rglob("*") if path.is_file())
    assert files
    for name in files:
        assert (run / name).read_bytes() == (again / name).read_bytes(), name
