"""Data sets on the hub or in a folder: read by name, and no plain text is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from commands import command
from huggingface_hub import constants
from refusals import Refusal

from hushtune.config import same_data
from hushtune.tasks.files import DataError, read_rows

SECRET = "the secret of row "

ABOUT = """---
configs:
- config_name: first
  data_files: [{split: train, path: first/train.jsonl}, {split: test, path: first/test.jsonl}]
- config_name: second
  data_files: [{split: train, path: second/train.jsonl}]
---
"""


def write(path: Path, label: str, count: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"text": f"{SECRET}{row} {label}", "label": "positive"} for row in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set as the hub has it, with two configurations, one of two splits."""
    folder = tmp_path / "set"
    write(folder / "first" / "train.jsonl", "first train")
    write(folder / "first" / "test.jsonl", "first test", 3)
    write(folder / "second" / "train.jsonl", "second train", 2)
    (folder / "README.md").write_text(ABOUT)
    return folder


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A hub with the one data set `org/set-v1.5`; collects where it was downloaded to."""
    places: list[Path] = []

    def download(name: str, *, repo_type: str, cache_dir: str) -> str:
        assert repo_type == "dataset"
        assert constants.HF_HUB_DISABLE_XET
        if name != "org/set-v1.5":
            raise OSError(f"no connection\nto look for {name}")
        places.append(Path(cache_dir))
        assert places[-1].stat().st_mode & 0o077 == 0
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return places


def texts(name: str) -> list[str]:
    return [row["text"] for _, row in read_rows(name)]


@pytest.mark.parametrize("where", ["folder", "hub"])
def test_configuration_and_split_are_part_of_the_name(where: str, folder: Path, hub: list[Path]):
    name = str(folder) if where == "folder" else "org/set-v1.5"
    assert texts(f"{name}@first")[0] == f"{SECRET}0 first train"
    assert texts(f"{name}@first:test") == [f"{SECRET}{row} first test" for row in range(3)]
    assert texts(f"{name}@second:train")[1] == f"{SECRET}1 second train"
    (place, _), *_ = read_rows(f"{name}@second")
    assert place == f"{name}@second, row 1"
    assert len(hub) == (4 if where == "hub" else 0)
    assert not any(place.exists() for place in hub)
    assert not constants.HF_HUB_DISABLE_XET


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{folder}", "no data set that can be read (Config name is missing."),
        ("{folder}@third", "no data set that can be read (BuilderConfig 'third' not found."),
        ("{folder}@first:dev", 'no data set that can be read (Unknown split "dev".'),
        ("{folder}@first:all", "all is no split"),
        ("{folder}@first:train[:9]", "no such file; a data set is NAME[@CONFIGURATION][:SPLIT]."),
        ("{folder}@first:train+test", "no such file; a data set is"),
        ("./nowhere@first", "no such file; expected"),
        ("rows.txt", "no such file; expected"),
        ("a/b/c", "no such file; expected"),
        ("org/other", "neither a file nor a data set on the hub (no connection to look for org/"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    name: str, message: str, folder: Path, hub: list[Path]
):
    name = name.format(folder=folder)
    with pytest.raises(DataError) as refused:
        texts(name)
    assert str(refused.value).startswith(f"{name.partition(':all')[0]}")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not any(place.exists() for place in hub)


def test_without_a_connection_the_line_says_so(run_arguments: list[str], tmp_path: Path, capsys):
    line = Refusal(run_arguments, tmp_path, capsys)("--data.train", "org/set:train")
    assert line.startswith("org/set: neither a file nor a data set on the hub (")
    assert "outgoing traffic has been disabled" in line


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("org/set", "org/set:train", True),
        ("org/set", "Org/Set", True),
        ("org/set@first", "org/set:train", True),
        ("org/set@first", "org/set@second", False),
        ("org/set:train", "org/set:test", False),
        ("org/set", "org/other", False),
        ("rows.jsonl", "./rows.jsonl", True),
        ("./set", "set:train", True),
        ("./set:train", "set:test", False),
        # Where a relative name was written, nobody knows any more.
        ("data/rows.jsonl", "/somewhere/data/rows.jsonl", True),
        ("../data/rows.jsonl", "/somewhere/data/rows.jsonl", True),
        ("data/rows.jsonl", "/somewhere/rows.jsonl", False),
        ("/here/rows.jsonl", "/there/rows.jsonl", False),
    ],
)
def test_a_name_of_the_private_data_is_known_in_every_spelling(one: str, other: str, same: bool):
    assert same_data(one, other) is same
    assert same_data(other, one) is same


def test_a_data_set_is_trained_on_and_its_test_split_is_public(
    run_arguments: list[str], folder: Path, tmp_path: Path, capsys
):
    data = ["--data.train", f"{folder}@first", "--data.eval", f"{folder}@first:test"]
    summary = command(capsys, "train", *run_arguments, *data)
    assert "private_accuracy" in summary
    guarantee = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert guarantee["population"] == 24
    refused = Refusal(run_arguments, tmp_path / "none", capsys)
    line = refused("--data.train", f"{folder}@first", "--data.eval", f"{folder}@first:train")
    assert "it must be public data, and not the private training data" in line


#: Reads one row of a data set, says so, and waits.
READER = """
import sys
from hushtune.tasks.files import read_rows
rows = read_rows(sys.argv[1])
print(next(rows)[0], flush=True)
sys.stdin.read()
for row in rows: pass
"""


def kept(*folders: Path) -> list[Path]:
    """Files that hold a secret."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if SECRET.encode() in path.read_bytes()]


def helpers_of(process: int) -> list[int]:
    """Processes that a process has started, where the system tells."""
    children = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


@pytest.mark.parametrize("end", [None, signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_process_no_text_stays(end: Any, folder: Path, tmp_path: Path):
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = inherited | {"HOME": str(home), "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", READER, f"{folder}@first"],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == f"{folder}@first, row 1\n"
        assert kept(home, temporary)
        if end is not None:
            helpers = helpers_of(process.pid)
            os.killpg(process.pid, end)  # as ^C and a closing terminal do
            if end != signal.SIGKILL:  # as a service manager does
                for helper in helpers:
                    os.kill(helper, end)
    while end is not None and list(temporary.iterdir()):  # the test's own limit ends this
        time.sleep(0.05)
    assert not kept(home, temporary)
    assert not list(temporary.iterdir())
