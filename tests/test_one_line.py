"""One short line trains: model, data, ε; the names of the data's columns tell the task."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from refusals import Refusal

import hushtune
from hushtune import config as configuration
from hushtune import finetuning
from hushtune.cli import main
from hushtune.cli.arguments import parse_run
from hushtune.config import Config, ConfigError

SECRET = "said in private"

CHAT = [{"role": "user", "content": SECRET}, {"role": "assistant", "content": SECRET}]

#: Rows of each kind, and other columns beside.
ROWS: dict[str, dict[str, Any]] = {
    "chat": {"messages": CHAT, "text": SECRET, "user_id": 7},
    "completion": {"prompt": SECRET, "completion": SECRET, "text": SECRET},
    "multiple-choice": {"text": SECRET, "choices": [SECRET, "b"], "label": 0},
    "language-modelling": {"text": SECRET, "user_id": 7},
}


def write(folder: Path, row: dict[str, Any], count: int = 12) -> str:
    path = folder / "data.jsonl"
    path.write_text((json.dumps(row) + "\n") * count, encoding="utf-8")
    return str(path)


def short(data: str) -> list[str]:
    return ["--model", "some/model", "--data", data, "--epsilon=2", "--output", "runs/my run"]


@pytest.mark.parametrize("command", ["train", "plan"])
@pytest.mark.parametrize("kind", ROWS)
def test_columns_tell_the_kind_and_the_command_is_said_in_full(
    kind: str, command: str, tmp_path: Path, capsys: Any
):
    config, _ = parse_run(command, short(write(tmp_path, ROWS[kind])))
    assert config.task.kind == kind
    assert (config.model.name, config.privacy.epsilon) == ("some/model", 2.0)
    shown = capsys.readouterr().out
    assert SECRET not in shown
    said, full, _ = shown.splitlines()
    assert said.startswith(f"{kind}, by the columns {', '.join(ROWS[kind])}; ")
    name, again, *flags = shlex.split(full)
    assert (name, again) == ("hushtune", command)
    assert {"--model.name", "--data.train", "--task.kind"} <= {*flags}
    assert parse_run(command, flags) == (config, False)
    assert capsys.readouterr().out == ""


def test_columns_go_by_the_names_that_the_configuration_has(tmp_path: Path, capsys: Any):
    row = {"question": "a", "answer": "b"}
    renamed = ["--data.prompt", "question", "--data.completion", "answer"]
    config, _ = parse_run("train", [*short(write(tmp_path, row)), *renamed, "--json"])
    assert config.task.kind == "completion"
    assert capsys.readouterr().out == ""  # which is the machine's
    (tmp_path / "data.csv").write_text("body,when\na,b\n")
    config, _ = parse_run("train", ["--data", str(tmp_path / "data.csv"), "--data.text", "body"])
    assert config.task.kind == "language-modelling"
    path = str(tmp_path / "data.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([ROWS["chat"]]), path)
    assert parse_run("train", ["--data", path])[0].task.kind == "chat"


def test_what_is_said_of_the_task_stands(tmp_path: Path, capsys: Any):
    data = write(tmp_path, ROWS["chat"])
    kind = ["--task.kind", "language-modelling"]
    assert parse_run("train", [*short(data), *kind])[0].task.kind == "language-modelling"
    labels = ["--task.labels", "a", "b", "c", "d"]
    assert parse_run("train", [*short(data), *labels])[0].task.kind == "classification"
    path = tmp_path / "run.yaml"
    path.write_text("task: {labels: {a: b, c: d}}\n")
    config, _ = parse_run("train", [str(path), *short(data)])
    assert config.task.labels == {"a": "b", "c": "d"}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "label": "b"}, "task.labels: {} is not accepted; texts with labels are"),
        ({"input": "a", "output": "b"}, "task.kind: the columns input, output tell none; expected"),
        (None, "data.jsonl: no rows; expected at least one."),
    ],
)
def test_what_columns_do_not_tell_is_refused_in_one_line(
    row: dict[str, Any] | None, message: str, tmp_path: Path, capsys: Any
):
    data = write(tmp_path, row or {}, count=12 if row else 0)
    assert message in Refusal(short(data), tmp_path, capsys)()


def test_one_line_trains_an_adapter(tiny: Any, tmp_path: Path, capsys: Any):
    data = write(tmp_path, ROWS["language-modelling"])
    run = tmp_path / "run"
    line = ["train", "--model", tiny("opt"), "--data", data, "--epsilon", "2"]
    quick = ["--method.steps", "2", "--method.directions", "2", "--data.max-length", "16"]
    with pytest.raises(SystemExit) as exit_:
        main([*line, *quick, "--output", str(run)])
    shown = capsys.readouterr().out
    assert not exit_.value.code
    assert SECRET not in shown
    assert "ε = " in shown
    assert (run / "adapter" / "adapter_config.json").exists()
    saved = configuration.load(run / "config.yaml")
    full = shlex.split(next(each for each in shown.splitlines() if "--task.kind" in each))
    assert parse_run("train", full[2:])[0] == saved


def test_from_python_the_columns_tell_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Config] = []

    def stop(config: Config, *_: Any, **__: Any) -> None:
        asked.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(finetuning, "train", stop)
    for kind, row in ROWS.items():
        for data in ([row] * 12, write(tmp_path, row), {"train": iter([row] * 12)}):
            with pytest.raises(KeyboardInterrupt):
                hushtune.finetune(model="some/model", data=data, privacy=2.0)
            assert asked[-1].task.kind == kind
    with pytest.raises(ConfigError, match=r"^task\.labels: {} is not accepted"):
        hushtune.finetune(model="some/model", data=[{"text": "a", "label": "b"}], privacy=2.0)
