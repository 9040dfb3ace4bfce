"""`hushtune audit`: what it prints, writes and exits with."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from canary_game import make_config, save_bag_encoder, stand_in, without_privacy
from conftest import write_reviews

from hushtune import run as runs
from hushtune.audit import both
from hushtune.cli import main
from hushtune.config import Config
from hushtune.files import write_config
from hushtune.privacy.audit import Finding, audit_mechanism

FLAGS = ("--canaries", "40", "--confidence", "0.999")


class Silent:
    def started(self, session: Any, charges: int) -> None: ...

    def stepped(self, charges: int) -> None: ...

    def evaluated(self, name: str, accuracy: float) -> None: ...


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_bag_encoder(tmp_path_factory.mktemp("bag"))


def train(encoder: str, folder: Path, *, private: bool = True) -> Config:
    config = make_config(
        encoder,
        write_reviews(folder / "train.jsonl", 60),
        folder / "run",
        steps=5,
        directions=4,
        batch=12.0,
    )
    config = config if private else without_privacy(config)
    runs.train(config, Silent())
    return config


@pytest.fixture(scope="module")
def finished(encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose private data is gone."""
    folder = tmp_path_factory.mktemp("finished")
    train(encoder, folder)
    (folder / "train.jsonl").unlink()
    return folder / "run"


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as exit_:
            main(["audit", *arguments])
        shown = capsys.readouterr()
        assert (exit_.value.code or 0) == code, shown.err
        return shown.err if shown.err and code else shown.out

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def claimed(folder: Path) -> float:
    return json.loads((folder / "privacy.json").read_text())["epsilon"]


def test_a_finished_run_is_audited_without_its_data(shell, run_folder: Path, monkeypatch):
    stand_in(monkeypatch)
    before = contents(run_folder)
    (line,) = shell(str(run_folder), *FLAGS, "--json").splitlines()
    result = json.loads(line)
    assert {"epsilon_lower_bound", "confidence", "epsilon_claimed", "delta"} <= result.keys()
    assert result["epsilon_lower_bound"] == 0.5  # the mechanism's
    assert (result["passed"], result["failures"], result["confidence"]) == (True, [], 0.999)
    assert result["epsilon_claimed"] == claimed(run_folder)
    for part in ("mechanism", "pipeline"):
        # Each may err with half the probability.
        assert result[part]["confidence"] == pytest.approx(0.9995, abs=1e-12)
    assert result["pipeline"]["canaries"] == 40
    assert {each["attack"] for each in result["pipeline"]["guesses"]} == {"ledger", "model"}
    after = contents(run_folder)
    assert json.loads(after.pop("audit.json")) == result
    assert after == before


def test_both_parts_are_the_real_ones(shell, run_folder: Path, monkeypatch):
    few = functools.partial(audit_mechanism, coordinates=20_000)
    monkeypatch.setattr(both, "audit_mechanism", few)
    result = json.loads(shell(str(run_folder), *FLAGS, "--json"))
    assert result["passed"]
    assert result["mechanism"]["released_coordinates"] >= 20_000
    assert result["mechanism"]["epsilon_claimed"] == result["epsilon_claimed"]
    parts = [result[part]["epsilon_lower_bound"] for part in ("mechanism", "pipeline")]
    assert result["epsilon_lower_bound"] == max(parts) > 0


def test_people_read_what_was_measured_and_what_was_claimed(shell, run_folder, monkeypatch):
    stand_in(monkeypatch)
    shown = " ".join(shell(str(run_folder), *FLAGS).split())
    for expected in (
        "40 canaries, 5 of 5 steps: about 1 min",
        "measured ε ≥ 0.5 with 0.999 confidence, δ = 1e-05, add-or-remove-one",
        f"claimed ε = {claimed(run_folder):.4g}",
        "from 1,000,000 released numbers",
        "from 40 canaries and 5 steps",
        "through the ledger",
        "ok noise: as it should be",
        "ok privacy curve through the model",
    ):
        assert expected in shown, shown
    assert "contradicts" not in shown


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"findings": (Finding("sign", False, "[one] sided"),)},
            "mechanism: sign: [one] sided",
        ),
        ({"epsilon_lower_bound": 9.0}, "mechanism: ε is at least 9, claimed "),
    ],
)
def test_a_contradiction_exits_with_1_and_says_which(
    shell, run_folder: Path, monkeypatch, changes: dict, line: str
):
    stand_in(monkeypatch, **changes)
    shown = " ".join(shell(str(run_folder), *FLAGS, code=1).split())
    assert f"contradicts the claim: {line.strip()}" in shown
    result = json.loads((run_folder / "audit.json").read_text())
    assert not result["passed"]
    assert result["failures"][0].startswith(line)


def test_a_planned_run_is_audited_from_its_file(shell, encoder, tmp_path: Path, monkeypatch):
    stand_in(monkeypatch)
    data = Path(write_reviews(tmp_path / "train.jsonl", 60))
    config = make_config(encoder, str(data), tmp_path / "run", steps=5, directions=4, batch=12.0)
    write_config(tmp_path / "run.yaml", config)
    out = tmp_path / "result.json"
    shell(str(tmp_path / "run.yaml"), *FLAGS, "--steps", "3", "--out", str(out))
    result = json.loads(out.read_text())
    assert result["pipeline"]["steps"] == 3
    assert 0 < result["pipeline"]["epsilon_claimed"] < result["epsilon_claimed"] <= 2
    assert not (tmp_path / "run").exists()


def test_the_private_text_of_a_planned_run_is_counted_only(shell, encoder, tmp_path, monkeypatch):
    stand_in(monkeypatch)
    rows = [json.dumps({"text": None, "label": "nobody knows"})] * 60
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    config = make_config(
        encoder, str(tmp_path / "train.jsonl"), tmp_path / "run", steps=5, batch=12.0
    )
    write_config(tmp_path / "run.yaml", config)
    shell(str(tmp_path / "run.yaml"), *FLAGS, "--json")


def test_a_run_without_privacy_claims_nothing(shell, encoder, tmp_path: Path):
    train(encoder, tmp_path, private=False)
    result = json.loads(shell(str(tmp_path / "run"), *FLAGS, "--json"))
    assert result["epsilon_claimed"] is None
    assert result["mechanism"] is None
    assert result["passed"] is True
    assert "claimed" in (shown := shell(str(tmp_path / "run"), *FLAGS))
    assert "nothing: this run has no privacy" in shown


@pytest.mark.parametrize("confidence", ["0.4", "1"])
def test_a_confidence_out_of_range_is_refused(shell, run_folder: Path, confidence: str):
    line = shell(str(run_folder), "--confidence", confidence, code=1)
    assert re.fullmatch(
        r"hushtune audit: --confidence: \S+ is not accepted; it must be from 0.5 to below 1.\n",
        line,
    )


def test_a_run_that_does_not_exist_is_refused_in_one_line(shell, tmp_path: Path):
    assert len(shell(str(tmp_path / "nowhere"), code=1).splitlines()) == 1
